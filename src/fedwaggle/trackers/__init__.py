"""Trackers: W&B and TensorBoard as readers of a run's record.

A tracker is a sink (:mod:`fedwaggle.runs.sinks`) behind two walls. Its thread hands lines over;
its library lives in a process of its own (:mod:`fedwaggle.trackers.process`), so that nothing
it does to its process (W&B replaces ``sys.exit``, hooks the exit of the interpreter and waits
there for uploads) is done to the run's.

Each module named in :data:`TRACKERS` has one function, ``open_tracker(run_path, project, say)``,
that returns a :class:`~fedwaggle.runs.sinks.Sink`. What it hands to ``say`` becomes a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from fedwaggle.errors import TrackerError
from fedwaggle.runs.sinks import Sink, SinkThread
from fedwaggle.runs.writer import EVENTS
from fedwaggle.trackers.process import ProcessSink

__all__ = ["TRACKERS", "Tracker", "open_trackers"]


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
    "tensorboard": Tracker(package="tensorboard", extra="tensorboard"),
    "wandb": Tracker(package="wandb", extra="wandb"),
}


def open_trackers(names: Sequence[str], run_path: Path, *, project: str) -> list[SinkThread]:
    """Open trackers for a run, each in its own thread and process.

    Call it before the run writes its first new event: what ``events.jsonl`` holds by then is
    shown first, so that a resumed run is shown without gaps or doubles.

    Parameters
    ----------
    names : Sequence[str]
        Names in :data:`TRACKERS`.
    run_path : Path
        The run's folder; trackers keep their files in it.
    project : str
        The project that the run is shown under.

    Returns
    -------
    list[SinkThread]
        One for each name, at once. A name that is not known, a package that is not installed
        and a service that cannot be reached become one warning each.
    """
    past = _whole_bytes(run_path / EVENTS)
    return [
        SinkThread(name, partial(_open, name, run_path, project, past))
        for name in dict.fromkeys(names)
    ]


def _open(name: str, run_path: Path, project: str, past: int) -> Sink:
    """Start the process of a tracker; runs in the sink's thread."""
    if name not in TRACKERS:
        raise TrackerError(f"expected one of {', '.join(TRACKERS)}, got {name!r}")
    tracker = TRACKERS[name]
    found = find_spec(tracker.package)
    if found is None or found.origin is None:  # without an origin it is just a folder of that name
        raise TrackerError(
            f"the package {tracker.package} is not installed; "
            f"pip install 'fedwaggle[{tracker.extra}]'"
        )
    return ProcessSink(name, [name, str(run_path), project, str(past)])


def _whole_bytes(events: Path) -> int:
    """Return how many bytes of a record are whole lines."""
    try:
        return events.read_bytes().rfind(b"\n") + 1
    except FileNotFoundError:
        return 0
