"""A mistake of the app, which all clients run into, ends the run at once and is told once."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedwaggle.errors import NodesError
from fedwaggle.runs import Run, load
from fedwaggle.strategy import RoundRules, Waggle


class Strategy(Waggle, FedAvg):
    """The plainest one."""


def add_one(msg, context):
    arrays = ArrayRecord({"w": Array(msg.content["arrays"]["w"].numpy() + np.float32(1))})
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=msg)


def import_nothing(msg, context):
    part = context.node_config["partition-id"]
    raise ModuleNotFoundError(f"No module named 'nothing', says client {part} at 0x7f{part}")


def start(run, grid, rounds=9, **rules):
    initial = ArrayRecord({"w": Array(np.zeros(4, np.float32))})
    fewest = {"min_train_nodes": 1, "min_available_nodes": 1}
    strategy = Strategy(run=run, fraction_evaluate=0.0, rules=RoundRules(**rules), **fewest)
    return strategy.start(grid, initial, rounds)


def test_the_same_error_of_all_clients_ends_the_run_in_its_first_round(make_grid, tmp_path, caplog):
    """Of five clients, the first is logged by name, and all are counted."""
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(NodesError, match=r"ModuleNotFoundError: No module .*client-raised x 5"),
        Run.create(tmp_path) as run,
    ):
        start(run, make_grid(import_nothing, 5))
    record = load(run.path)
    assert [each.round for each in record.rounds] == [0, 1]
    assert "No module named 'nothing'" in record.error
    told = [line for line in caplog.messages if "No module named" in line]
    assert len(told) == 2
    assert told[0].startswith("train: client ")
    assert told[1].startswith("round 1: ")
    assert told[1].endswith("(client-raised) x 5 clients")


def test_wrong_shapes_of_all_clients_are_a_mistake_of_the_app_too(make_grid):
    def wrong_shape(msg, context):
        content = RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(5, np.float32))})})
        content["metrics"] = MetricRecord({"num-examples": 1})
        return Message(content, reply_to=msg)

    with pytest.raises(NodesError, match=r"every client of round 1 failed alike.*wrong-shape x 2"):
        start(None, make_grid(wrong_shape, 2))


@pytest.mark.parametrize(
    ("nodes", "rules"),
    [(1, {}), (3, {"max_skipped_rounds": 0})],
    ids=["a client alone", "no limit of skipped rounds"],
)
def test_what_may_be_chance_is_given_the_rounds_that_were_asked_for(make_grid, nodes, rules):
    """One client has nothing in common with others, and a limit of 0 never ends a run."""
    with pytest.raises(NodesError, match="no client has trained the model: 2 rounds"):
        start(None, make_grid(import_nothing, nodes), rounds=2, **rules)


def test_clients_that_trained_before_may_do_so_again(make_grid):
    """All fail alike in round 2, and train again in round 3."""

    def client(msg, context):
        if msg.content["config"]["server-round"] == 2:
            raise OSError("the disk that all share is away")
        return add_one(msg, context)

    assert start(None, make_grid(client, 3), rounds=3).arrays["w"].numpy()[0] == 2.0


def test_the_last_word_on_skipped_rounds_is_what_the_clients_had_in_common(make_grid):
    def client(msg, context):
        if msg.content["config"]["server-round"] > 1:
            raise OSError("the disk that all share is away")
        return add_one(msg, context)

    with pytest.raises(NodesError, match=r"max-skipped-rounds: .*OSError: the disk .* x 3"):
        start(None, make_grid(client, 3))
