"""Trackers: W&B, MLflow, TensorBoard, CSV and others as readers of a run's record.

A tracker's library lives in a process of its own (:mod:`fedwaggle.trackers.process`), so that
nothing it does to its process (W&B replaces ``sys.exit``, hooks the exit of the interpreter and
waits there for uploads) is done to the run's. The process follows ``events.jsonl``: a run only
ever writes its record, and no tracker can stop, slow, change or corrupt it. A tracker that fails
or hangs is dropped with one warning.

The module of a tracker has one function, ``open_tracker(run_path, project, warn)``, that returns a
:class:`Sink`. What it hands to ``warn`` becomes a warning. A package of somebody else's adds a
tracker by an entry point of the group ``fedwaggle.trackers`` that names its module.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from fedwaggle.config import added_trackers
from fedwaggle.errors import TrackerError
from fedwaggle.runs.events import Event
from fedwaggle.runs.paths import EVENTS
from fedwaggle.runs.reading import whole_bytes
from fedwaggle.trackers.process import TrackerProcess

__all__ = ["TRACKERS", "Sink", "Tracker", "open_trackers"]

logger = logging.getLogger("flwr.fedwaggle")  # below Flower's, so that its log shows it


class Sink(Protocol):
    """Shows the events of one run somewhere. It may raise and take its time: it is contained."""

    def record(self, event: Event) -> None:
        """Show an event."""

    def close(self) -> None:
        """Write out what is left."""


@dataclass(frozen=True)
class Tracker:
    """What a tracker needs.

    Attributes
    ----------
    package : str
        The package that it imports.
    extra : str
        The extra of this library that installs it.
    """

    package: str
    extra: str


TRACKERS = {
    "csv": Tracker(package="csv", extra=""),
    "mlflow": Tracker(package="mlflow", extra="mlflow"),
    "tensorboard": Tracker(package="tensorboard", extra="tensorboard"),
    "wandb": Tracker(package="wandb", extra="wandb"),
}


def open_trackers(names: Sequence[str], run_path: Path, *, project: str) -> list[TrackerProcess]:
    """Open trackers for a run, each in its own process.

    Call it before the run writes its first new event: what ``events.jsonl`` holds by then is
    shown first, so that a resumed run is shown without gaps or doubles.

    Parameters
    ----------
    names : Sequence[str]
        Names in :data:`TRACKERS`, or of entry points of the group ``fedwaggle.trackers``.
    run_path : Path
        The run's folder; trackers keep their files in it.
    project : str
        The project that the run is shown under.

    Returns
    -------
    list[TrackerProcess]
        Those that could be started, at once. A name that is not known, a package that is not
        installed and a service that cannot be reached become one warning each.
    """
    past = whole_bytes(run_path / EVENTS)
    started = []
    for name in dict.fromkeys(names):
        try:
            module = _module_of(name)
            started.append(TrackerProcess(name, module, run_path, project=project, past=past))
        except (TrackerError, OSError) as error:
            logger.warning("Tracker %s is left out: %s.", name, error)
    return started


def _module_of(name: str) -> str:
    """Return the module of a tracker; raise TrackerError if it cannot be used here."""
    if name not in TRACKERS:
        added = {point.name: point.module for point in added_trackers()}
        if name not in added:
            raise TrackerError(f"expected one of {', '.join([*TRACKERS, *added])}, got {name!r}")
        return added[name]
    tracker = TRACKERS[name]
    found = find_spec(tracker.package)
    if found is None or found.origin is None:  # without an origin it is just a folder of that name
        raise TrackerError(
            f"the package {tracker.package} is not installed; "
            f"pip install 'fedwaggle[{tracker.extra}]'"
        )
    return f"fedwaggle.trackers.{name}"
