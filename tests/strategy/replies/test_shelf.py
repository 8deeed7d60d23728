"""Laws of the metadata that a round keeps: decoded within a budget, and beyond it one at a time."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedwaggle.errors import RunError
from fedwaggle.metadata import pack
from fedwaggle.runs import Run
from fedwaggle.runs.reading import read_events
from fedwaggle.strategy import RoundRules, Waggle

PAYLOAD = len(b'{"number":0,"text":"xxxxxxxxxx"}')


@dataclass
class Facts:
    number: int
    text: str


def train(msg, context):
    facts = Facts(context.node_config["partition-id"], "x" * 10)
    records = {
        "arrays": msg.content["arrays"],
        "metrics": MetricRecord({"num-examples": 1}),
        "metadata": pack(facts),
    }
    return Message(RecordDict(records), reply_to=msg)


class Keeps(Waggle[Facts], FedAvg):
    """Keeps the updates of the last round."""

    updates = ()

    def on_train_metadata(self, server_round, updates):
        self.updates = updates
        return {"sum": sum(update.metadata.number for update in updates)}


def updates_of(grid, run, budget):
    """Return the updates of a round within a budget of payload bytes."""
    rules = RoundRules(metadata_budget=budget)
    strategy = Keeps(run=run, rules=rules, fraction_evaluate=0.0)
    result = strategy.start(grid, ArrayRecord({"w": Array(np.zeros(1, np.float32))}), 1)
    assert result.train_metrics_clientapp[1]["sum"] == 0 + 1 + 2 + 3
    return strategy.updates


def is_kept(update) -> bool:
    return update.metadata is update.metadata


@pytest.mark.parametrize(("budget", "decoded"), [(0, 0), (2 * PAYLOAD, 2), (4 * PAYLOAD, 4)])
def test_what_is_beyond_the_budget_waits_on_disk(make_grid, tmp_path, budget, decoded) -> None:
    """4 payloads of 32 bytes; what they say is the same either way, and so is the record."""
    with Run.create(tmp_path) as run:
        updates = updates_of(make_grid(train, 4), run, budget)
        assert [asdict(update.metadata) for update in updates] == [
            {"number": number, "text": "x" * 10} for number in range(4)
        ]
        late = [vars(update)["metadata"] for update in updates]
        assert sum(isinstance(metadata, Facts) for metadata in late) == decoded
        assert _open_files_in(run.path) == (decoded < 4)
        del updates, late
    recorded = [e for e in read_events(run.path / "events.jsonl") if e.event == "client-updated"]
    assert sorted(event.metadata["number"] for event in recorded) == [0, 1, 2, 3]


def test_one_late_metadata_is_decoded_at_a_time(make_grid) -> None:
    """Reading two fields of one client is one decoding; another client's is one more."""
    first, second, *_ = updates_of(make_grid(train, 4), None, 0)
    metadata = first.metadata
    assert first.metadata is metadata
    assert second.metadata is not metadata
    assert first.metadata is not metadata
    assert first.metadata == metadata


def test_a_copy_of_an_update_holds_its_metadata(make_grid) -> None:
    (update, *_) = updates_of(make_grid(train, 4), None, 0)
    for other in (copy.deepcopy(update), replace(update, seconds=1.0)):
        assert isinstance(vars(other)["metadata"], Facts)
        assert other.metadata == Facts(0, "x" * 10)


def test_without_a_disk_metadata_waits_in_memory(make_grid, monkeypatch, caplog) -> None:
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedwaggle.strategy.replies.shelf.tempfile.TemporaryFile", full)
    updates = updates_of(make_grid(train, 4), None, 0)
    assert [update.metadata.number for update in updates] == [0, 1, 2, 3]
    assert "metadata stays in memory" in caplog.text


def test_what_cannot_be_read_back_is_an_error_with_its_fix(make_grid, monkeypatch) -> None:
    update, *_ = updates_of(make_grid(train, 4), None, 0)
    monkeypatch.setattr("fedwaggle.strategy.replies.shelf.os.pread", lambda *_: b"")
    with pytest.raises(RunError, match=r"metadata-budget.*resume the run"):
        _ = update.metadata


def _open_files_in(folder: Path) -> int:
    """Return how many files without a name this process has open in a folder."""
    names = []
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            names.append(str(fd.readlink()))
    return sum(name.startswith(str(folder)) and name.endswith("(deleted)") for name in names)
