"""What W&B has of a run, read back from its own files with its own tool."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedwaggle.runs.events import Event, RoundFinished
from fedwaggle.trackers.wandb import WandbTracker, wandb_id
from waiting import PATIENCE, wait_for_end

Tell = Callable[[Path, Sequence[str], Sequence[Event]], None]


def inspect(file: Path, *options: str) -> str:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, str(file)]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=PATIENCE
    ).stdout


def history(run: Path) -> list[dict[str, Any]]:
    """Return what was logged for each round, from the only file that is there to sync."""
    (file,) = run.glob(f"wandb/offline-run-*-{wandb_id(run)}/*.wandb")
    records = map(json.loads, inspect(file).splitlines())
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    return [item for item in items if "round-seconds" in item]


def summary(run: Path) -> dict[str, Any]:
    (file,) = run.glob(f"wandb/offline-run-*-{wandb_id(run)}/*.wandb")
    told: dict[str, Any] = json.loads(inspect(file, "--summary"))
    return told


def test_a_run_without_a_key_is_shown_offline_and_whole(
    run: Path, whole_run: list[Event], tell: Tell, warnings: list[str]
) -> None:
    (run / "report.html").write_text("<p>a report</p>")
    tell(run, ["wandb"], whole_run)
    assert warnings == []

    rounds = history(run)
    assert [item["round"] for item in rounds] == [0, 1, 2, 3]
    assert [item["global/accuracy"] for item in rounds] == [0.1, 0.25, 0.5, 0.75]
    assert math.isnan(float(rounds[2]["global/loss"]))
    last = rounds[3]
    assert last["learning-rate"] == 0.1
    assert last["train/train_loss"] == 0.75
    assert (last["clients/updates"], last["clients/quarantined"], last["clients/missing"]) == (
        *(2, 1, 1),
    )
    assert (last["client/0/training_time"], last["client/0/training_losses"]) == (4.5, 0.25)
    assert last["metadata/converged"] == 1
    assert last["metadata/training_time._type"] == "histogram"
    assert sum(last["reply-seconds.values"]) == 2  # clients

    told = summary(run)
    assert told["name"] == "20260102T030405Z-iid"
    assert told["project"] == "waggle-tests"
    assert told["exit_code"] == 0
    assert told["config"]["lr"] == 0.1
    assert told["config"]["waggle"]["seed"] == 42
    assert told["summary"]["best"] == {
        "round": 3, "metric": "accuracy", "value": 0.75, "sha256": "ab"
    }  # fmt: skip
    (table,) = run.glob("wandb/offline-run-*/files/media/table/convergence*.json")
    assert json.loads(table.read_text())["data"] == [[2, "0", 3.0, "1, 0.25"]]
    (table,) = run.glob("wandb/offline-run-*/files/media/table/happenings*.json")
    happenings = json.loads(table.read_text())["data"]
    assert [1, "quarantine", "2", "nan: `w` is NaN"] in happenings
    assert [1, "decision", "", "Plateau: wait (0 of 2)"] in happenings
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    assert '"type":"report"' in inspect(file).replace(" ", "")


def test_a_resumed_run_has_neither_gaps_nor_doubles(
    run: Path,
    interrupted_run: tuple[list[Event], list[Event]],
    tell: Tell,
    warnings: list[str],
) -> None:
    before, after = interrupted_run
    tell(run, ["wandb"], before)
    with (run / "events.jsonl").open("a") as file:
        file.write('{"v": 1, "event": "round-st')  # the run was killed in the middle of a line
    first = history(run)
    (run / "events.jsonl").write_text((run / "events.jsonl").read_text().rpartition("\n")[0] + "\n")
    tell(run, ["wandb"], after)
    assert warnings == []
    assert [item["round"] for item in first] == [0, 1, 2]
    assert [item["round"] for item in history(run)] == [0, 1, 2, 3]
    assert summary(run)["config"]["lr"] == 0.05
    assert summary(run)["exit_code"] == 0
    assert len(list(run.glob(f"wandb/superseded/offline-run-*-{wandb_id(run)}"))) == 1


def test_rounds_that_the_service_already_has_are_not_sent_again(tmp_path: Path) -> None:
    """The service knows rounds up to 2; after the resume, only round 3 is sent."""
    sent: list[dict[str, Any]] = []
    service = SimpleNamespace(
        id="abc",
        resumed=True,
        summary={"round": 2},
        define_metric=lambda *_, **__: None,
        log=sent.append,
        finish=lambda exit_code: sent.append({"exit": exit_code}),
    )
    tracker = WandbTracker(service, tmp_path)  # type: ignore[arg-type]  # just what is used of it
    for server_round in range(4):
        tracker.record(RoundFinished(round=server_round, seconds=1.0))
    tracker.close()
    assert [item.get("round") for item in sent] == [3, None]
    assert sent[-1] == {"exit": 1}  # nobody said that the run ended well


def test_the_run_process_is_left_as_it_was(run: Path, whole_run: list[Event], tell: Tell) -> None:
    """W&B hooks the end of its process; the run's own is another one."""
    before = (sys.exit, sys.excepthook, dict(os.environ), sys.stdout, sys.stderr)
    tell(run, ["wandb"], whole_run)
    assert before == (sys.exit, sys.excepthook, dict(os.environ), sys.stdout, sys.stderr)
    assert (Path.home() / ".cache" / "wandb").exists() is False


def test_a_killed_run_is_shown_up_to_its_last_event(run: Path) -> None:
    """SIGKILL cannot be caught, and W&B's file is still complete."""
    program = """
import sys, time
from pathlib import Path
from fedwaggle.runs.events import RoundFinished, to_line
from fedwaggle.trackers import open_trackers
run = Path(sys.argv[1])
trackers = open_trackers(["wandb"], run, project="waggle-tests")
with (run / "events.jsonl").open("w") as file:
    for each in range(3):
        file.write(to_line(RoundFinished(round=each, seconds=1.0)) + "\\n")
print(trackers[0]._process.pid, flush=True)
time.sleep(3600)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(run)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        tracker = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    wait_for_end([tracker])
    assert [item["round"] for item in history(run)] == [0, 1, 2]
    assert summary(run)["exit_code"] == 1


def test_with_a_service_that_does_not_answer_the_run_is_kept_offline(
    run: Path,
    whole_run: list[Event],
    tell: Tell,
    warnings: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It costs one warning, which says how to send the run later, and not W&B's own 90 seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and says nothing
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "local-" + 40 * "a")
        began = time.monotonic()
        tell(run, ["wandb"], whole_run)
        assert time.monotonic() - began < 80
    (warning,) = warnings
    assert "does not answer" in warning
    assert f"wandb sync {run}/wandb/offline-run-*" in warning
    assert [item["round"] for item in history(run)] == [0, 1, 2, 3]


def test_with_a_key_that_is_refused_the_run_is_kept_offline(
    run: Path,
    whole_run: list[Event],
    tell: Tell,
    warnings: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with refusing_service() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setenv("WANDB_API_KEY", "local-" + 40 * "a")
        tell(run, ["wandb"], whole_run)
    (warning,) = warnings
    assert "The run is kept offline" in warning
    assert [item["round"] for item in history(run)] == [0, 1, 2, 3]


@contextmanager
def refusing_service() -> Iterator[str]:
    """Answer everything as a web service answers who has no right to ask."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        def do_POST(self) -> None:
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
