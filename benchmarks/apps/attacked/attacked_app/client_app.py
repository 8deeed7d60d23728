"""The quickstart's client; one client attacks as the environment asks for.

``ATTACK`` names an attack, ``absent`` or ``evaluation``; ``CLAIM=1`` lets the attacker claim as
many examples as the server allows; ``SIZES=1`` leaves the clients between 6 and 600 examples.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from attacked_app.attacks import ATTACKER, ATTACKS, FIRST_ROUND, LARGEST_COUNT
from fedwaggle.data import Examples, TensorExamples, load_examples
from fedwaggle.data.loading import LoadData
from fedwaggle.identity import answer_identity
from my_federated_project import client_app as honest

ATTACK = os.environ.get("ATTACK", "")
app = answer_identity(ClientApp())


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Train as the quickstart does; the attacker spoils its reply."""
    is_attacker = str(context.node_config["partition-id"]) == ATTACKER
    if is_attacker and ATTACK == "absent":
        raise RuntimeError("absent")
    before = {key: a.numpy() for key, a in msg.content.array_records["arrays"].items()}
    reply = honest.train(msg, context)
    if not is_attacker or ATTACK not in ATTACKS:
        return reply
    config = msg.content.config_records["config"]
    if ATTACK == "huge once" and context.state.config_records:  # it has attacked before
        return reply
    if ATTACK == "huge once":
        if int(config["server-round"]) < FIRST_ROUND:  # type: ignore[call-overload]
            return reply
        context.state["attacked"] = config
    numbers = np.random.default_rng(config["seed"])  # type: ignore[arg-type]
    after = reply.content.array_records["arrays"]
    with np.errstate(over="ignore"):
        spoiled = {
            key: Array(ATTACKS[ATTACK](array.numpy(), before[key], numbers))
            for key, array in after.items()
        }
    reply.content["arrays"] = ArrayRecord(spoiled)
    claim(reply)
    return reply


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Evaluate as the quickstart does; the attacker may report that every model is perfect."""
    reply = honest.evaluate(msg, context)
    is_attacker = str(context.node_config["partition-id"]) == ATTACKER
    if is_attacker and ATTACK == "evaluation":
        reply.content.metric_records["metrics"]["accuracy"] = 1.0
        claim(reply)
    return reply


def claim(reply: Message) -> None:
    """Let a reply claim as many examples as the server allows, if the attacker shall."""
    if os.environ.get("CLAIM"):
        reply.content.metric_records["metrics"]["num-examples"] = LARGEST_COUNT


def _fewer(load_data: LoadData, split: str, context: Context) -> Examples:
    """Return a client's examples, of training 100 times as many for the last as for the first."""
    examples = load_examples(load_data, split, context)
    if split != "train":
        return examples
    share = 100 ** (int(context.node_config["partition-id"]) / 9 - 1)
    kept = torch.arange(max(1, round(share * len(examples))))
    return TensorExamples(*examples.take(kept))


if os.environ.get("SIZES"):
    honest.load_examples = _fewer
