"""The list of trackers, and what keeps them at arm's length."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import fedwaggle.trackers
from fedwaggle.config import TRACKER_NAMES
from fedwaggle.runs.events import Event
from fedwaggle.trackers import TRACKERS, Tracker, open_trackers
from waiting import PATIENCE

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
    opened = open_trackers(["tensorboard", "tensorboard"], run, project="")
    assert [tracker.name for tracker in opened] == ["tensorboard"]
    opened[0].close(PATIENCE)


def test_a_tracker_that_cannot_write_its_files_is_one_warning(
    run: Path, whole_run: list[Event], tell: Tell, warnings: list[str]
) -> None:
    (run / "tensorboard").write_text("a file where the folder should be")
    tell(run, ["tensorboard"], whole_run)
    assert len(warnings) == 1
    assert "FileExistsError" in warnings[0]
