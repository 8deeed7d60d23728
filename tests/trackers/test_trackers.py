"""The list of trackers, and what keeps them at arm's length."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import fedwaggle.trackers
from fedwaggle.config import TRACKER_NAMES
from fedwaggle.errors import TrackerError
from fedwaggle.runs.events import Event, RoundFinished
from fedwaggle.trackers import TRACKERS, Tracker, open_trackers
from fedwaggle.trackers.process import ProcessSink
from fedwaggle.trackers.replay import CatchUp

Tell = Callable[[Path, Sequence[str], Sequence[Event]], None]


def test_every_tracker_has_its_module_its_package_and_its_extra() -> None:
    folder = Path(fedwaggle.trackers.__file__).parent
    modules = [path.stem for path in folder.glob("*.py") if "def open_tracker" in path.read_text()]
    modules = [name for name in modules if name != "__init__"]
    assert sorted(TRACKERS) == sorted(modules) == sorted(TRACKER_NAMES)
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    extras = pyproject["project"]["optional-dependencies"]
    for name, tracker in TRACKERS.items():
        assert callable(import_module(f"fedwaggle.trackers.{name}").open_tracker)
        assert version(tracker.package)
        assert any(need.startswith(tracker.package) for need in extras[tracker.extra])


def test_a_package_that_is_not_installed_is_one_warning_that_names_the_extra(
    run: Path,
    whole_run: list[Event],
    tell: Tell,
    warnings: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(TRACKERS, "wandb", Tracker(package="wandb_that_is_not", extra="wandb"))
    tell(run, ["wandb"], whole_run)
    assert len(warnings) == 1
    assert "pip install 'fedwaggle[wandb]'" in warnings[0]


def test_a_name_that_is_not_known_is_one_warning_that_names_those_that_are(
    run: Path, whole_run: list[Event], tell: Tell, warnings: list[str]
) -> None:
    tell(run, ["wanbd"], whole_run)
    assert len(warnings) == 1
    assert "expected one of tensorboard, wandb, got 'wanbd'" in warnings[0]


def test_a_tracker_that_is_asked_for_twice_is_opened_once(run: Path) -> None:
    sinks = open_trackers(["x", "x"], run, project="")
    assert [sink.name for sink in sinks] == ["x"]
    sinks[0].close()


def test_a_tracker_that_cannot_write_its_files_is_one_warning(
    run: Path, whole_run: list[Event], tell: Tell, warnings: list[str]
) -> None:
    (run / "tensorboard").write_text("a file where the folder should be")
    tell(run, ["tensorboard"], whole_run)
    assert len(warnings) == 1
    assert "FileExistsError" in warnings[0]


def process(body: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **options: float) -> None:
    """Start a tracker's process whose code is ``body`` instead, tell it a round, and close it."""
    program = tmp_path / "program"
    program.write_text(f"#!{sys.executable}\nimport sys, time\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    sink = ProcessSink("wandb", [], **options)
    sink.record(RoundFinished(round=1, seconds=1.0))
    sink.close()


def test_a_process_that_ends_without_a_word_is_an_error_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(TrackerError, match="ended early: RuntimeError: boom"):
        process("raise RuntimeError('boom')", monkeypatch, tmp_path)


def test_a_process_that_fails_later_is_an_error_that_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    body = """print('"ready"', flush=True); sys.stdin.readline(); print('"no disk"'); sys.exit(1)"""
    with pytest.raises(TrackerError, match="no disk"):
        process(body, monkeypatch, tmp_path)


def test_a_process_that_hangs_at_its_end_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    body = """print('"ready"', flush=True); time.sleep(3600)"""
    with pytest.raises(TrackerError, match=r"not done 0\.2 s after"):
        process(body, monkeypatch, tmp_path, close_seconds=0.2)


def test_the_past_ends_where_it_ended_when_the_trackers_were_opened(tmp_path: Path) -> None:
    """What the run writes while a tracker still opens comes once, not twice."""
    shown: list[Event] = []

    class Recording:
        def record(self, event: Event) -> None:
            shown.append(event)

        def close(self) -> None:
            pass

    rounds = [RoundFinished(round=each, seconds=1.0) for each in range(3)]
    events = tmp_path / "events.jsonl"
    lines = [each.model_dump_json() + "\n" for each in rounds]
    events.write_text("".join(lines))
    sink = CatchUp(Recording(), events, past=len(lines[0]))
    sink.record(rounds[1])
    sink.record(rounds[2])
    assert shown == rounds
