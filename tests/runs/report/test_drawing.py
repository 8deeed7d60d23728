"""The report at the end of a run is drawn by another process, whose memory stays small."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from fedwaggle.errors import DiskError
from fedwaggle.runs import Run
from fedwaggle.runs.events import RunFinished
from fedwaggle.runs.report.drawing import DrawingFailed, draw_report
from runs.report_data import Federation, run_events, write_run

END = RunFinished(rounds=0, sha256="", seconds=1.0)

DRAW = """
import re, sys
from pathlib import Path
from fedwaggle.runs.report.__main__ import main
status = main(sys.argv[1], "250")
peak = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())
print(int(peak[1]) // 1000)  # not ru_maxrss, which begins with that of the process before it
sys.exit(status)
"""

CLOSE = """
import sys
from pathlib import Path
from fedwaggle.runs import Request, Run

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

with Run(Path(sys.argv[1]), Request()):
    before = resident()
print(round(resident() - before))
print([name for name in ("numpy", "jinja2", "plotly") if name in sys.modules])
"""


def run_python(code: str, *arguments: Path) -> list[str]:
    """Return what a fresh process printed."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


def record_of(folder: Path, updates: int) -> Path:
    """Write a run of so many updates, 100 a round."""
    kind = Federation(rounds=updates // 100, clients=100, fraction=1.0, trouble=0.0)
    return write_run(folder, run_events(kind))


def test_the_memory_of_drawing_does_not_follow_the_events(tmp_path: Path) -> None:
    """10,000 updates have 40 MB as events; they cost less than 25 MB above a tenth of them."""
    small, large = (record_of(tmp_path / str(n), n) for n in (1_000, 10_000))
    peaks = [int(run_python(DRAW, run)[0]) for run in (small, large)]
    assert peaks[1] - peaks[0] < 25


@pytest.mark.slow
def test_a_record_of_100_000_updates_is_drawn_in_300_mb(tmp_path: Path) -> None:
    run = record_of(tmp_path / "run", 100_000)
    assert int(run_python(DRAW, run)[0]) < 300


def test_the_process_of_the_run_does_not_grow_by_its_report(tmp_path: Path) -> None:
    """Neither the events of 10,000 updates nor the modules that draw come into it."""
    run = record_of(tmp_path / "run", 10_000)
    grown, modules, _ = run_python(CLOSE, run)
    assert "10,000" in (run / "report.html").read_text()
    assert int(grown) < 10
    assert modules == "[]"


def test_a_report_that_cannot_be_drawn_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with caplog.at_level(logging.WARNING), Run.create(tmp_path) as run:
        run.record(END)
    assert len(caplog.messages) == 1
    assert "no report: its process cannot be started" in caplog.messages[0]


def test_a_report_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [END])
    with pytest.raises(DrawingFailed, match="not drawn within 0 s"):
        draw_report(run, deadline=0)


def test_a_tracker_finds_the_report_when_it_is_closed(tmp_path: Path) -> None:
    """W&B keeps it as an artifact."""
    found: list[bool] = []
    run = Run.create(tmp_path)

    class Tracker:
        def finish(self) -> None:
            found.append((run.path / "report.html").exists())

        def close(self, timeout: float) -> None:
            pass

    run.attach([Tracker()])
    with run:
        run.record(END)
    assert found == [True]


def test_a_report_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    """The run ended well, but its end is not what was asked for."""
    run = Run.create(tmp_path)
    (run.path / "report.html").mkdir()
    with pytest.raises(DiskError, match=r"report\.html \(.*Is a directory"), run:
        run.record(END)


def test_the_error_of_a_block_is_raised_and_what_is_not_written_is_logged_beside_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run.create(tmp_path)
    run.not_written("final.pth", OSError(28, "No space left on device"))
    with pytest.raises(ZeroDivisionError), run:
        raise ZeroDivisionError
    assert "final.pth ([Errno 28] No space left on device)" in caplog.text


def test_a_file_that_could_be_written_later_is_not_missing(tmp_path: Path) -> None:
    with Run.create(tmp_path) as run:
        run.not_written("best.pth", "no room")
        run.written("best.pth")
