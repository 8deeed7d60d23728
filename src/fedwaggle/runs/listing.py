"""The runs below a folder: their list, as values and as a table, and one of them by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from pathlib import Path

from rich.table import Table
from rich.text import Text

from fedwaggle.errors import RunError
from fedwaggle.runs.events import BestModel, Event, UnknownEvent, parse_line
from fedwaggle.runs.lines import Lines
from fedwaggle.runs.paths import EVENTS, run_folders
from fedwaggle.runs.record import RunRecord, is_being_written, record_of
from fedwaggle.text import printable

__all__ = [
    "STATUS_STYLES",
    "RunListing",
    "duration",
    "find_run",
    "list_runs",
    "record_in_short",
    "render_runs",
]

STATUS_STYLES = {
    "running": "cyan",
    "finished": "green",
    "failed": "red",
    "interrupted": "yellow",
    "unreadable": "red",
}


_CLIENT_UPDATED = b'"event":"client-updated"'


@dataclass(frozen=True)
class RunListing:
    """A run in a list.

    Attributes
    ----------
    path : Path
        Its folder.
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
    """

    path: Path
    status: str
    started: datetime | None = None
    seconds: float = 0.0
    rounds: int = 0
    num_rounds: int = 0
    seed: int | None = None
    best: BestModel | None = None


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
        ``latest``, the name of a folder in ``root``, or the path of a folder.
    root : Path
        The folder that holds the folders of runs.

    Raises
    ------
    RunError
        If there is no such run. The message names those that come near.
    """
    folders = run_folders(root)
    if which == "latest" and folders:
        return folders[-1]
    for path in (root / which, Path(which).expanduser()):
        if which and (path / EVENTS).is_file():
            return path
    names = [path.name for path in folders]
    near = get_close_matches(which, names, n=3, cutoff=0.3) or names[-3:]
    known = f"; there are {', '.join(near)}" if near else f"; there are no runs in {root}"
    raise RunError(f"expected latest, the name of a run, or its folder, got {which!r}{known}")


def render_runs(listings: Sequence[RunListing]) -> Table:
    """Return runs as a table for a terminal.

    Examples
    --------
    >>> from rich.console import Console
    >>> best = BestModel(round=7, metric="accuracy", value=0.8861, sha256="")
    >>> run = RunListing(Path("20260102T030405Z-iid"), "finished", None, 75.0, 8, 8, 42, best)
    >>> Console(width=90).print(render_runs([run]))  # doctest: +NORMALIZE_WHITESPACE
     run                   status    rounds  best                          duration  seed
     20260102T030405Z-iid  finished     8/8  accuracy 0.8861 (round 7)         1:15    42
    """
    table = Table(box=None, header_style="bold")
    table.add_column("run", overflow="fold", min_width=16)  # of a start's time
    table.add_column("status", no_wrap=True)
    table.add_column("rounds", no_wrap=True, justify="right")
    table.add_column("best", overflow="fold", min_width=8)
    table.add_column("duration", no_wrap=True, justify="right")
    table.add_column("seed", no_wrap=True, justify="right")
    for each in listings:
        table.add_row(
            Text(printable(each.path.name)),
            Text(each.status, style=STATUS_STYLES[each.status]),
            f"{each.rounds}/{each.num_rounds}",
            Text(_best(each.best)),
            duration(each.seconds),
            "" if each.seed is None else str(each.seed),
        )
    return table


def duration(seconds: float) -> str:
    """Return a duration as ``minutes:seconds``, or with hours and days where it has any.

    Examples
    --------
    >>> duration(75.0), duration(3661.4)
    ('1:15', '1:01:01')
    """
    text = str(timedelta(seconds=round(seconds)))
    return text.removeprefix("0:").removeprefix("0")


def _best(best: BestModel | None) -> str:
    if best is None:
        return ""
    return f"{printable(best.metric, 40)} {best.value:.4g} (round {best.round})"


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
        return RunListing(path, "unreadable")
    return RunListing(
        path,
        run.status,
        started=run.started,
        seconds=run.seconds,
        rounds=run.rounds_done,
        num_rounds=run.num_rounds,
        seed=run.seed,
        best=run.best,
    )


def _events_in_short(lines: Lines) -> Iterator[Event | UnknownEvent]:
    """Yield a run's events but for its client updates: nearly all there are, and not listed."""
    for event in lines.read(_unless_an_update):
        if event is not None:
            yield event


def _unless_an_update(line: bytes) -> Event | UnknownEvent | None:
    # Where a line is laid out in another way, it is parsed as the others are.
    return None if _CLIENT_UPDATED in line[:100] else parse_line(line)
