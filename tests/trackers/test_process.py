"""No tracker can stop, slow, change or corrupt a run; each is a process that follows its record."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fedwaggle.runs import Run
from fedwaggle.runs.events import RoundFinished, RunResumed, to_line
from fedwaggle.trackers.process import TrackerProcess
from waiting import FOR_EVER, PATIENCE, wait_until

# Writes each round that it is shown, and whether it was closed, into a file.
RECORDING = """
import sys, time
class Sink:
    def __init__(self, run_path): self.file = (run_path / "shown.txt").open("a")
    def record(self, event): self.write(f"{event.event} {event.round}")
    def close(self): self.write("closed")
    def write(self, line): print(line, file=self.file, flush=True)
def open_tracker(run_path, project, warn): return Sink(run_path)
"""
RAISING = """
from recording import Sink as Recording
class Sink(Recording):
    def record(self, event):
        super().record(event)
        if event.round == 1: raise SystemExit("\x1b[31mboom\x1b[0m")
def open_tracker(run_path, project, warn): return Sink(run_path)
"""
UNCLOSABLE = """
from recording import Sink as Recording
class Sink(Recording):
    def close(self): super().close(); raise OSError("disk full")
def open_tracker(run_path, project, warn): return Sink(run_path)
"""
HANGING = """
import time
from recording import Sink as Recording
class Sink(Recording):
    def close(self): time.sleep(3600)
def open_tracker(run_path, project, warn): return Sink(run_path)
"""
HANGING_AT_START = "import time\ndef open_tracker(run_path, project, warn): time.sleep(3600)"
CRASHING = "import sys; print('words', file=sys.stderr); raise RuntimeError('boom')"
DYING = "import os, sys; print('last words', file=sys.stderr, flush=True); os._exit(3)"
WARNING = """
from recording import Sink
def open_tracker(run_path, project, warn):
    print("noise of a library")
    warn("it is kept offline")
    return Sink(run_path)
"""
MODULES = {
    "recording": RECORDING,
    "raising": RAISING,
    "unclosable": UNCLOSABLE,
    "hanging": HANGING,
    "hanging_at_start": HANGING_AT_START,
    "crashing": CRASHING,
    "dying": DYING,
    "warning": WARNING,
}

Start = Callable[..., TrackerProcess]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Return a function that starts a tracker of a module above, for the run in ``tmp_path``."""
    folder = tmp_path / "modules"
    folder.mkdir()
    for name, code in MODULES.items():
        (folder / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))

    def start_one(module: str, past: int = 0) -> TrackerProcess:
        return TrackerProcess(module, module, tmp_path, project="", past=past)

    return start_one


def write(run: Path, *rounds: int, end: str = "\n") -> None:
    with (run / "events.jsonl").open("a") as file:
        for number in rounds:
            file.write(to_line(RoundFinished(round=number, seconds=1.0)) + end)


def shown(run: Path) -> list[str]:
    file = run / "shown.txt"
    return file.read_text().splitlines() if file.exists() else []


def rounds(*numbers: int) -> list[str]:
    return [f"round-finished {number}" for number in numbers]


def test_a_tracker_is_shown_every_event_as_it_comes_and_then_closed(
    start: Start, tmp_path: Path, warnings: list[str]
) -> None:
    """The record is not even there when it starts."""
    tracker = start("recording")
    write(tmp_path, 0, 1)
    wait_until(lambda: shown(tmp_path) == rounds(0, 1), lambda: shown(tmp_path))
    write(tmp_path, *range(2, 100))
    tracker.close(PATIENCE)
    tracker.close(PATIENCE)  # once more does no harm
    assert shown(tmp_path) == [*rounds(*range(100)), "closed"]
    assert (warnings, tracker.is_dropped) == ([], False)


@pytest.mark.parametrize(
    ("module", "reason", "expected"),
    [
        ("raising", "SystemExit: boom", [*rounds(0, 1), "closed"]),
        ("unclosable", "OSError: disk full", [*rounds(0, 1, 2), "closed"]),
        ("crashing", "RuntimeError: boom", []),
        ("dying", "its process ended early: last words", []),
        ("absent", "ModuleNotFoundError: No module named 'absent'", []),
    ],
)
def test_a_tracker_that_fails_is_dropped_with_one_warning(
    start: Start,
    tmp_path: Path,
    warnings: list[str],
    module: str,
    reason: str,
    expected: list[str],
) -> None:
    """It keeps what it has so far, if that can be done."""
    write(tmp_path, 0, 1, 2)
    tracker = start(module)
    tracker.close(PATIENCE)
    assert warnings == [
        f"Tracker {module} is dropped: {reason}. The run goes on, and its events.jsonl is complete."
    ]
    assert shown(tmp_path) == expected
    assert tracker.is_dropped


@pytest.mark.parametrize("module", ["hanging", "hanging_at_start"])
def test_a_tracker_that_hangs_is_killed_after_a_bounded_time(
    start: Start, tmp_path: Path, warnings: list[str], module: str
) -> None:
    write(tmp_path, 0)
    tracker = start(module)
    began = time.monotonic()
    tracker.close(0.3)
    assert time.monotonic() - began < PATIENCE
    assert len(warnings) == 1
    assert "not done 0.3 s after the run" in warnings[0]
    assert tracker._process.poll() is not None


def test_a_run_waits_for_hanging_trackers_once_and_never_before_its_end(
    start: Start, tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three that hang and one that does not: the wait of one, not of three."""
    monkeypatch.setattr("fedwaggle.runs.writer._FOLLOWER_SECONDS", 3.0)
    with Run.create(tmp_path / "outputs") as run:
        followers = [
            TrackerProcess(name, name, run.path, project="", past=0)
            for name in ("hanging", "hanging", "hanging_at_start", "recording")
        ]
        run.attach(followers)
        for number in range(1000):
            run.record(RoundFinished(round=number, seconds=1.0))
        wait_until(lambda: len(shown(run.path)) >= 3 * 1000)
        began = time.monotonic()
    assert time.monotonic() - began < 3 * 3.0 + PATIENCE
    assert shown(run.path).count("round-finished 999") == 3
    assert shown(run.path).count("closed") == 1
    assert len(warnings) == 3


def test_a_tracker_may_warn_and_go_on(start: Start, tmp_path: Path, warnings: list[str]) -> None:
    write(tmp_path, 0)
    start("warning").close(PATIENCE)
    assert warnings == ["Tracker warning: it is kept offline"]
    assert shown(tmp_path) == [*rounds(0), "closed"]


def test_lines_that_cannot_be_read_and_events_of_a_newer_version_are_skipped(
    start: Start, tmp_path: Path, warnings: list[str]
) -> None:
    write(tmp_path, 0)
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"v": 1, "event": "round-\0\n' + '{"v": 2, "event": "moon-landed"}\n')
    write(tmp_path, 3)
    start("recording").close(PATIENCE)
    assert shown(tmp_path) == [*rounds(0, 3), "closed"]
    assert warnings == []


def test_a_resumed_run_is_shown_once_it_says_from_which_round(start: Start, tmp_path: Path) -> None:
    """Rounds 0 to 2 are the past; the run goes on after round 1, and has other ones from there."""
    write(tmp_path, 0, 1, 2)
    tracker = start("recording", past=(tmp_path / "events.jsonl").stat().st_size)
    time.sleep(1.0)
    assert shown(tmp_path) == []
    resumed = RunResumed(round=1, num_rounds=3, engine="", nodes=None, changes={})
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write(to_line(resumed) + "\n")
    write(tmp_path, 2, 3)
    tracker.close(PATIENCE)
    assert shown(tmp_path) == [*rounds(0, 1), "run-resumed 1", *rounds(2, 3), "closed"]


def test_a_killed_run_is_shown_up_to_its_last_line(start: Start, tmp_path: Path) -> None:
    """SIGKILL cannot be caught; the last line has no end, and nobody is left to write it."""
    write(tmp_path, 0)
    program = f"""
import os, signal, sys, time
from pathlib import Path
from fedwaggle.trackers.process import TrackerProcess
TrackerProcess("recording", "recording", Path({str(tmp_path)!r}), project="", past=0)
print("started", flush=True)
time.sleep(3600)
"""
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {json.dumps(sys.path)}\n{program}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        write(tmp_path, 1)
        write(tmp_path, 2, end="")
        process.kill()
    wait_until(lambda: "closed" in shown(tmp_path), lambda: shown(tmp_path))
    assert shown(tmp_path) == [*rounds(0, 1), "closed"]


def test_a_hanging_tracker_does_not_keep_the_interpreter_from_its_end(
    start: Start, tmp_path: Path
) -> None:
    program = f"""
import sys; sys.path[:] = {json.dumps(sys.path)}
from pathlib import Path
from fedwaggle.trackers.process import TrackerProcess
one = TrackerProcess("hanging", "hanging_at_start", Path({str(tmp_path)!r}), project="", past=0)
print(one._process.pid)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        timeout=FOR_EVER,
        check=True,
        capture_output=True,
        text=True,
    )
    pid = int(done.stdout)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
