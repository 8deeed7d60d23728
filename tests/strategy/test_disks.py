"""A disk that is full, and one that cannot be written: real small file systems, where root is."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedwaggle.errors import DiskError, RunError
from fedwaggle.runs import Run
from fedwaggle.runs.reading import read_events
from fedwaggle.strategy import Waggle

SIZE = 25_000  # float32: a model of 100 kB


class Strategy(Waggle, FedAvg):
    """The plainest one."""


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """Mount a file system in memory; skip where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs root, to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(autouse=True)
def no_reports() -> None:
    """Let reports be drawn here: they need room, too."""


def train(msg, context):
    sent = msg.content["arrays"]["w"].numpy()
    arrays = ArrayRecord({"w": Array(sent + np.float32(1))})
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)


def rising(server_round, arrays):
    return MetricRecord({"accuracy": server_round / 10})


def start(run, grid, rounds=4, evaluate=rising):
    initial = ArrayRecord({"w": Array(np.zeros(SIZE, np.float32))})
    strategy = Strategy(run=run, fraction_evaluate=0.0)
    return strategy.start(grid, initial, rounds, evaluate_fn=evaluate)


def test_a_disk_that_fills_up_costs_files_and_not_the_training(make_grid, tmp_path):
    """All that is left is taken in round 2: what was written stays whole, and all rounds are run.

    The end names the models that could not be written.
    """
    with small_disk(tmp_path / "disk", "size=650k") as disk:

        def filling(server_round, arrays):
            if server_round == 2:
                with (disk / "ballast").open("wb") as ballast:
                    os.posix_fallocate(ballast.fileno(), 0, _room_left(disk))
            return rising(server_round, arrays)

        with pytest.raises(DiskError) as caught, Run.create(disk) as run:  # noqa: PT012
            result = start(run, make_grid(train, 2), evaluate=filling)
            path = run.path
            best = json.loads((path / "best.json").read_text())
            state = torch.load(path / "best.pth", weights_only=True)
            (disk / "ballast").unlink()  # the report and the end of the record find room again
        assert "best.pth" in str(caught.value)
        assert "final.pth" in str(caught.value)
        assert result.arrays["w"].numpy()[0] == 4.0
        assert best["round"] == 1
        assert state["w"][0] == best["round"]
        events = list(read_events(path / "events.jsonl"))
        failed = [e for e in events if e.event == "checkpoint-failed"]
        assert [e.round for e in failed if e.file == "best.pth"] == [2, 3, 4]
        assert all("No space left" in e.error or "torch.save" in e.error for e in failed)
        assert {e.round for e in events if e.event == "snapshot-failed"} == {2, 3, 4}
        assert [e.round for e in events if e.event == "round-finished"] == [0, 1, 2, 3, 4]


def _room_left(disk: Path) -> int:
    stats = os.statvfs(disk)
    return stats.f_bavail * stats.f_frsize


def test_a_folder_that_cannot_be_written_is_an_error_before_any_round(tmp_path):
    with (
        small_disk(tmp_path / "disk", "ro") as disk,
        pytest.raises(RunError, match="cannot be written") as caught,
    ):
        Run.create(disk / "outputs")
    assert str(disk) in str(caught.value)
    assert "outputs" in str(caught.value)


def test_files_of_limited_size_are_the_same_story_without_root(make_grid, tmp_path):
    """No file may grow past 60 kB: no model of 100 kB is ever kept, and the run completes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        with pytest.raises(DiskError, match=r"best\.pth .*final\.pth .*report\.html"):  # noqa: SIM117
            with Run.create(tmp_path) as run:
                result = start(run, make_grid(train, 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert result.arrays["w"].numpy()[0] == 4.0
    assert not list(run.path.glob("*.pth"))
    events = list(read_events(run.path / "events.jsonl"))
    assert events[-1].event == "run-finished"
    assert events[-1].best is None
