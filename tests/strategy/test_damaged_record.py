"""A damaged line in the record does not keep a run from being resumed."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedwaggle.runs import Request, Run, load, open_folder
from fedwaggle.strategy import Waggle


class Strategy(Waggle, FedAvg):
    """The plainest one."""


def add_one(msg, context):
    arrays = ArrayRecord({"w": Array(msg.content["arrays"]["w"].numpy() + np.float32(1))})
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=msg)


def start(run, grid, rounds):
    initial = ArrayRecord({"w": Array(np.zeros(4, np.float32))})
    return Strategy(run=run, fraction_evaluate=0.0).start(grid, initial, rounds)


@pytest.mark.parametrize("fork", [False, True])
def test_a_run_with_a_damaged_line_is_resumed_and_forked(make_grid, tmp_path, fork):
    """A bit flips in the second of two rounds; the next two are run, and all four are there."""
    with Run.create(tmp_path, request=Request()) as run:
        start(run, make_grid(add_one, 2), 2)
    record = run.path / "events.jsonl"
    told = record.read_bytes().splitlines(keepends=True)
    at = next(i for i, line in enumerate(told) if b'"client-updated","round":2' in line)
    told[at] = told[at].replace(b'"round"', b'"rou\xeed"')
    record.write_bytes(b"".join(told))
    with open_folder(tmp_path, request=Request(), resume=str(run.path), fork=fork) as again:
        result = start(again, make_grid(add_one, 2), 4)
    assert result.arrays["w"].numpy()[0] == 4.0
    assert [each.round for each in load(again.path).rounds] == [0, 1, 2, 3, 4]
