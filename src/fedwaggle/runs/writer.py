"""The folder of a run, and the one object that writes its record.

``events.jsonl`` is the truth; whatever shows a run elsewhere reads it, and can neither stop nor
change anything. A disk that is full costs events only until there is room again, and never the
run.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from fedwaggle.errors import DiskError, RunError
from fedwaggle.runs.events import Event, RunFailed, to_line
from fedwaggle.runs.files import LineFile, write_atomic
from fedwaggle.runs.paths import BEST, EVENTS, REPORT, REQUEST, next_number, one_at_a_time
from fedwaggle.runs.report.drawing import DrawingFailed, PageNotWritten, draw_report
from fedwaggle.runs.request import Request
from fedwaggle.text import printable

__all__ = [
    "Follower",
    "Run",
    "make_folder",
    "outputs_root",
]

logger = logging.getLogger("flwr.fedwaggle.runs")  # below Flower's, so that its log shows it

_FOLLOWER_SECONDS = 15.0  # for all of them together, at the end of a run

# A crash of the machine itself may cost the events of a round, but none of these.
_SYNCED = {"run-started", "run-resumed", "round-finished", "run-finished", "run-failed"}


def outputs_root(configured: str = "") -> Path:
    """Return the folder that holds the folders of runs.

    Parameters
    ----------
    configured : str
        The config key ``outputs``; if it is empty, the environment's ``WAGGLE_OUTPUTS``
        counts, and without that Flower's home.

    Raises
    ------
    RunError
        If the configured folder is relative: Flower starts server apps in a folder of its own
        choice, so the runs would land there.

    Examples
    --------
    >>> outputs_root("/data/runs")
    PosixPath('/data/runs')
    """
    asked = configured or os.environ.get("WAGGLE_OUTPUTS", "")
    if asked:
        root = Path(asked).expanduser()
        if not root.is_absolute():
            raise RunError(
                f"outputs: expected an absolute folder, got {asked!r}; Flower starts the server "
                f"in a folder of its own choice. Write {str(Path(asked).absolute())!r} to mean "
                "the one below this folder"
            )
        return root
    return Path(os.environ.get("FLWR_HOME", Path.home() / ".flwr")) / "outputs"


class Follower(Protocol):
    """What follows a run's record, such as a tracker's process."""

    def finish(self) -> None:
        """Take note that the record is complete; must not wait."""

    def close(self, timeout: float) -> None:
        """End, within so many seconds."""


class Run:
    """An open run folder.

    Make one with :meth:`create`, or with ``opening.open_folder`` to resume an earlier one, and
    use it as a context manager: an exception that leaves the block is recorded as its end.

    Attributes
    ----------
    path : Path
        The folder.
    request : Request
        What was asked of the run.
    resumed : Mapping[str, list] | None
        None for a new run. For one that goes on: the config keys that changed, each with the
        value before and the value now.
    is_fork : bool
        Whether it goes on from another run's resume point.
    count_labels : Callable[[int], list[dict[str, int]]] | None
        Counts, for a number of simulated nodes, how many examples of each class every one has; to
        be recorded when the run starts.
    """

    def __init__(
        self,
        path: Path,
        request: Request,
        *,
        resumed: Mapping[str, list[Any]] | None = None,
        is_fork: bool = False,
    ) -> None:
        self.path = path
        self.request = request
        self.resumed = resumed
        self.is_fork = is_fork
        self.count_labels: Callable[[int], list[dict[str, int]]] | None = None
        self._followers: list[Follower] = []
        self._listeners: list[Callable[[Event], None]] = []
        self._began = time.monotonic()
        self._last_round = 0
        self._disk_trouble = False
        self._claimed = False
        self._unwritten: dict[str, str] = {}
        try:
            self._lines = LineFile(path / EVENTS)
        except BlockingIOError as error:
            raise RunError(f"{path}: another process is writing this run; stop it first") from error
        except OSError as error:
            raise RunError(f"{path / EVENTS}: cannot be written ({error})") from error

    @classmethod
    def create(cls, root: Path, *, name: str = "", request: Request | None = None) -> Self:
        """Make the folder ``<root>/<UTC time>-<name>``, and open it.

        Parameters
        ----------
        root : Path
            The folder of all runs; it is made if it is not there.
        name : str
            For people; characters that make trouble in file names become hyphens.
        request : Request | None
            What was asked; written to ``run.json``.

        Raises
        ------
        RunError
            If it cannot be written there. The message names the folder and the remedy.
        """
        return cls(*make_folder(root, name, request or Request()))

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def claim(self) -> None:
        """Take the run for the rounds of one strategy.

        Raises
        ------
        RunError
            If its rounds are already taken: those of a second start would replace them.
        """
        if self._claimed:
            raise RunError(
                f"{self.name}: expected a run without rounds, and a strategy has been started in "
                "it; open a run of its own for each start (Run.create, open_folder), and begin the "
                "second one with the arrays of the first result"
            )
        self._claimed = True

    def explain_not_repeatable(self, causes: Mapping[str, str]) -> None:
        """Write into ``run.json`` why the run cannot be repeated; nothing if it can be.

        Parameters
        ----------
        causes : Mapping[str, str]
            The reasons, by cause; they replace those before.
        """
        if dict(causes) == self.request.not_repeatable:
            return
        self.request = self.request.model_copy(update={"not_repeatable": dict(causes)})
        try:
            write_atomic(self.path / REQUEST, _as_json(self.request))
        except OSError as error:  # the event holds it, too
            logger.warning("%s: cannot be written (%s)", self.path / REQUEST, error)

    def attach(self, followers: Sequence[Follower]) -> None:
        """Close these with the run, once its record is complete."""
        self._followers.extend(followers)

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call a function with each event that is recorded from now on."""
        self._listeners.append(listener)

    def record(self, event: Event) -> None:
        """Append an event to ``events.jsonl``.

        Nothing is raised when the disk is full: the line waits in memory, and is written
        when there is room again.
        """
        self._last_round = getattr(event, "round", self._last_round)
        line = to_line(event)
        try:
            self._lines.append(line, sync=event.event in _SYNCED)
            self._disk_trouble = False
        except OSError as error:
            if not self._disk_trouble:
                logger.warning("%s: cannot be written (%s); lines wait", self.path / EVENTS, error)
            self._disk_trouble = True
        for listener in self._listeners:
            listener(event)

    def flush(self) -> None:
        """Write the lines that wait.

        Raises
        ------
        OSError
            If one cannot be written still.
        """
        self._lines.flush()

    def not_written(self, name: str, reason: object) -> None:
        """Note that a file of the run could not be written; the run then does not end well.

        Parameters
        ----------
        name : str
            What is missing, such as ``final.pth``.
        reason : object
            Why; the error, or a text.
        """
        self._unwritten[name] = printable(str(reason), 300)

    def written(self, name: str) -> None:
        """Note that a file could be written after all."""
        self._unwritten.pop(name, None)

    def close(self) -> None:
        """Close the record, have the report drawn, and close what follows the run.

        What could not be written is logged; a block of ``with`` raises it.
        """
        if missing := self._end():
            logger.error("%s", missing)

    def __enter__(self) -> Self:
        """Enter the block that the run happens in."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Record how the run ended, if by an error, and close it.

        A run that was asked to stop has not failed: it is interrupted, as after a ``kill -9``.

        Raises
        ------
        DiskError
            If no error left the block, but a file of the run could not be written.
        """
        if kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit):
            logger.info(
                "stopped in round %d; `waggle run APP --resume %s` resumes it",
                self._last_round,
                self.path.name,
            )
        elif kind is not None:
            said = printable(f"{kind.__name__}: {error}", 2000)
            seconds = time.monotonic() - self._began
            self.record(RunFailed(error=said, round=self._last_round, seconds=seconds))
        if kind is not None:
            self.close()
        elif missing := self._end():
            raise DiskError(missing)
        if kind is None:
            self._log_files()

    def _log_files(self) -> None:
        for what, file in (("best model", BEST), ("report", REPORT)):
            if (self.path / file).exists():
                logger.info("%s: %s", what, self.path / file)

    def _end(self) -> str:
        """Close everything; return what could not be written, or an empty text."""
        self._lines.close()
        if self._lines.waiting:
            self.not_written(EVENTS, f"its last {self._lines.waiting:,} lines")
        self._draw()
        self._close_followers()  # after the report: a tracker may show it, too
        if not self._unwritten:
            return ""
        files = ", ".join(f"{name} ({reason})" for name, reason in self._unwritten.items())
        return (
            f"{self.path}: expected room for the last files of the run, but these could not be "
            f"written: {files}; make room, then write them with "
            f"`waggle run APP --resume {self.path.name}`"
        )

    def _close_followers(self) -> None:
        """Close all at the same time, and wait for them together."""
        until = time.monotonic() + _FOLLOWER_SECONDS
        for follower in self._followers:
            follower.finish()
        for follower in self._followers:
            follower.close(max(0.0, until - time.monotonic()))
        self._followers.clear()

    def _draw(self) -> None:
        try:
            draw_report(self.path)
        except PageNotWritten as error:
            self.not_written(REPORT, error)
        except DrawingFailed as error:
            logger.warning("no report: %s; `waggle report %s` draws it", error, self.path.name)


def make_folder(root: Path, name: str, request: Request) -> tuple[Path, Request]:
    """Make the folder of a new run, with its ``run.json``; see :meth:`Run.create`.

    Returns the folder, and the request with the run's number among those of ``root``.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(root):
            numbered = request.model_copy(update={"number": next_number(root)})
            path = _new_folder(root, name)
            write_atomic(path / REQUEST, _as_json(numbered))
    except OSError as error:
        raise RunError(
            f"outputs: {root} cannot be written ({error.strerror or error}); set the config "
            "key outputs to a folder that can"
        ) from error
    return path, numbered


def _as_json(request: Request) -> bytes:
    return request.model_dump_json(indent=2).encode() + b"\n"


def _new_folder(root: Path, name: str) -> Path:
    """Make a folder that no other run has."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:64]
    base = f"{stamp}-{plain}" if plain else stamp
    for number in range(1, 1000):
        path = root / (base if number == 1 else f"{base}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue  # a run that began in the same second
        return path
    raise RunError(f"{root}: a thousand runs began in one second; give them names with run-name")
