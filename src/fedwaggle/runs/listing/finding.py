"""The runs below a folder: their list, and one of them by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fedwaggle.errors import RunError
from fedwaggle.runs.events import BestModel, Event, UnknownEvent, parse_line
from fedwaggle.runs.lines import Lines
from fedwaggle.runs.listing.names import name_of
from fedwaggle.runs.paths import EVENTS, run_folders
from fedwaggle.runs.record import RunRecord, is_being_written, record_of

__all__ = ["RunListing", "find_run", "list_runs", "record_in_short"]

_OF_A_CLIENT = (b'"event":"client-updated"', b'"event":"client-evaluated"')


@dataclass(frozen=True)
class RunListing:
    """A run in a list.

    Attributes
    ----------
    path : Path
        Its folder.
    name : str
        A name for people: see :func:`fedwaggle.runs.listing.names.name_of`.
    app : str
        The package of the app that made it, if that is known.
    status : str
        ``running``, ``finished``, ``failed`` or ``interrupted``; ``unreadable`` if no line of
        its record can be read.
    started : datetime | None
        When it began (UTC), if it did.
    seconds : float
        Wall time of its rounds together (s).
    rounds : int
        Rounds that have ended.
    num_rounds : int
        Rounds that are asked for.
    seed : int | None
        Its seed.
    best : BestModel | None
        Its best model.
    error : str
        Why it failed, if it did.
    config : dict[str, Any]
        The run config.
    """

    path: Path
    name: str
    status: str
    app: str = ""
    started: datetime | None = None
    seconds: float = 0.0
    rounds: int = 0
    num_rounds: int = 0
    seed: int | None = None
    best: BestModel | None = None
    error: str = ""
    config: dict[str, Any] = field(default_factory=dict)


def list_runs(root: Path) -> list[RunListing]:
    """Return the runs in a folder, the oldest first.

    Parameters
    ----------
    root : Path
        The folder that holds the folders of runs. If it is not there, it holds none.
    """
    return [_listing(path) for path in run_folders(root)]


def find_run(which: str, root: Path) -> Path:
    """Return the folder of a run.

    Parameters
    ----------
    which : str
        ``latest``, the name of a run or of its folder in ``root``, or the path of a folder.
    root : Path
        The folder that holds the folders of runs.

    Raises
    ------
    RunError
        If there is no such run, or there are several of that name. The message names those that
        come near.
    """
    folders = run_folders(root)
    if which == "latest" and folders:
        return folders[-1]
    for path in (root / which, Path(which).expanduser()):
        if which and (path / EVENTS).is_file():
            return path
    named = [path for path in folders if name_of(path.name) == which]
    if len(named) > 1:
        some = ", ".join(path.name for path in named[-3:])
        raise RunError(f"expected the name of one run, got {which!r}, which {some} have")
    if named:
        return named[0]
    names = [name for path in folders for name in (name_of(path.name), path.name)]
    near = get_close_matches(which, names, n=3, cutoff=0.3) or names[-3:]
    known = f"; there are {', '.join(near)}" if near else f"; there are no runs in {root}"
    raise RunError(f"expected latest, the name of a run, or its folder, got {which!r}{known}")


def record_in_short(path: Path) -> RunRecord | None:
    """Return a run's record without its updates, which takes a tenth of the time.

    Parameters
    ----------
    path : Path
        The folder of the run.

    Returns
    -------
    RunRecord | None
        None if no line of it can be read.
    """
    lines = Lines(path / EVENTS)
    try:
        run = record_of(path, _events_in_short(lines), is_live=is_being_written(path))
    except (RunError, OSError):
        return None
    return None if lines.damaged and run.started is None else run


def _listing(path: Path) -> RunListing:
    run = record_in_short(path)
    if run is None:
        return RunListing(path, name_of(path.name), "unreadable")
    return RunListing(
        path,
        name_of(path.name),
        run.status,
        app=run.app,
        started=run.started,
        seconds=run.seconds,
        rounds=run.rounds_done,
        num_rounds=run.num_rounds,
        seed=run.seed,
        best=run.best,
        error=run.error,
        config=run.config,
    )


def _events_in_short(lines: Lines) -> Iterator[Event | UnknownEvent]:
    """Yield a run's events but for its client updates: nearly all there are, and not listed."""
    for event in lines.read(_unless_an_update):
        if event is not None:
            yield event


def _unless_an_update(line: bytes) -> Event | UnknownEvent | None:
    # Where a line is laid out in another way, it is parsed as the others are.
    head = line[:100]
    return None if any(kind in head for kind in _OF_A_CLIENT) else parse_line(line)
