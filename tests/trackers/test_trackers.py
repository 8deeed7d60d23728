"""The list of trackers, and what keeps them at arm's length."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import pytest

import fedwaggle.trackers
from fedwaggle.config import TRACKER_NAMES, read_config
from fedwaggle.errors import ConfigError
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
        if tracker.extra:  # the others need nothing but Python
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
    assert "expected one of csv, mlflow, tensorboard, wandb, got 'wanbd'" in warnings[0]


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


TRACKER = """
class Lines:
    def __init__(self, path):
        self.file = path.open("w")

    def record(self, event):
        self.file.write(event.event + "\\n")

    def close(self):
        self.file.close()

def open_tracker(run_path, project, warn):
    return Lines(run_path / "lines.txt")
"""


def test_a_package_of_somebody_else_adds_a_tracker_by_an_entry_point(
    tmp_path: Path, run: Path, whole_run: list[Event], tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is installed from a folder, named in the run config, and sees every event."""
    package = tmp_path / "lines-tracker"
    package.mkdir()
    (package / "lines_tracker.py").write_text(TRACKER)
    (package / "pyproject.toml").write_text(
        '[project]\nname = "lines-tracker"\nversion = "1"\n'
        '[project.entry-points."fedwaggle.trackers"]\nlines = "lines_tracker"\n'
        '[tool.setuptools]\npy-modules = ["lines_tracker"]\n'
    )
    place = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place)]
    subprocess.run([*pip, str(package)], check=True, capture_output=True)
    with pytest.raises(ConfigError, match="tracker: expected a list of wandb, mlflow, tensorboard"):
        read_config({"tracker": "lines"})
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("PYTHONPATH", str(place))
    assert read_config({"tracker": "lines,csv"}).trackers == ("lines", "csv")
    tell(run, ["lines"], whole_run)
    seen = (run / "lines.txt").read_text().splitlines()
    assert seen == [event.event for event in whole_run]
