"""Clients of which the one with partition id 2 does what the config key ``attack`` selects."""

import os
import time

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedwaggle import answer_identity, safeguards

guard = safeguards(__package__)


def guard_of_honest_sites(msg: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Stand for the safeguards, which the owner of a hostile site has taken out."""
    is_hostile = context.node_config.get("hostile", False)
    return call_next(msg, context) if is_hostile else guard(msg, context, call_next)


app = answer_identity(ClientApp(mods=[guard_of_honest_sites]))


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Add 1 to each weight; the attacker does something else."""
    partition = context.node_config["partition-id"]
    attack = str(context.run_config["attack"]) if partition == 2 else "none"
    size = int(context.run_config["attack-size"])
    weights = msg.content["arrays"]["w"].numpy() + np.float32(1)
    content = RecordDict({"metrics": MetricRecord({"num-examples": 10})})
    if attack == "raise":
        raise ValueError("a site that fails")
    if attack == "hang":
        time.sleep(100_000)
    if attack == "die":
        os._exit(9)
    if attack == "nan":
        weights = np.full_like(weights, np.nan)
    if attack == "arrays":
        weights = np.random.default_rng(0).random(size // 4, dtype=np.float32)
    if attack == "zeros":
        weights = np.zeros(size // 4, dtype=np.float32)
    if attack == "metadata":
        content["metadata"] = ConfigRecord({"payload": os.urandom(size)})
    content["arrays"] = ArrayRecord({"w": Array(weights)})
    return Message(content, reply_to=msg)
