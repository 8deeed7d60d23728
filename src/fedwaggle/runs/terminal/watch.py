"""Watch a run in a terminal, while it goes on or after its end.

The view reads ``events.jsonl`` as it grows. It knows nothing of the process that writes it, so
it stays when that process crashes, and goes on when the run is resumed.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from rich.console import Console, ConsoleDimensions
from rich.live import Live

from fedwaggle.runs.events import parse_line
from fedwaggle.runs.lines import Lines
from fedwaggle.runs.paths import EVENTS
from fedwaggle.runs.record import RecordReader, RunRecord, is_being_written
from fedwaggle.runs.terminal.screen import frame

__all__ = ["Tail", "frame", "watch"]

POLL_SECONDS = 0.25
FIXED_ROWS = 20  # of a frame, beside the clients' own


def watch(run: Path, console: Console | None = None) -> None:
    """Show a run until it has finished, or until somebody presses q.

    Off a terminal, one frame is printed; if the run is still going on, another at its end.

    Parameters
    ----------
    run : Path
        The folder of the run.
    console : Console | None (default: None)
        Where to show it; by default on standard output.

    Raises
    ------
    RunError
        If there is no run in that folder.
    """
    console = console or Console()
    tail = Tail(run)
    if console.is_terminal:
        with suppress(KeyboardInterrupt):  # it quits, as q does
            _show_live(tail, console)
    else:
        record = tail.record()
        console.print(frame(record, console.width))
        if record.status != "running":
            return
        while tail.record().status == "running":
            time.sleep(POLL_SECONDS)
    console.print(frame(tail.record(), console.width))


class Tail:
    """A run's record, kept up with what is appended to it.

    Parameters
    ----------
    run : Path
        The folder of the run.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._lines = Lines(run / EVENTS)
        self._reader = RecordReader(run)
        self._record: RunRecord | None = None
        self._was_live = False

    def record(self) -> RunRecord:
        """Return the record as of now; the same object, if nothing has changed.

        Raises
        ------
        RunError
            If there is no run in the folder. The message names the file.
        """
        is_live = is_being_written(self._run)  # before reading: the end of a run comes last
        before = self._lines.offset
        for event in self._lines.read(parse_line):
            self._reader.add(event)
        has_news = self._lines.offset > before
        if self._record is None or has_news or is_live != self._was_live:
            self._was_live = is_live
            record = self._reader.record(is_live=is_live)
            self._record = replace(record, damaged_lines=self._lines.damaged)
        return self._record


def _show_live(tail: Tail, console: Console) -> None:
    """Draw the run anew whenever it or the terminal has changed."""
    drawn: tuple[RunRecord, ConsoleDimensions] | None = None
    with Live(console=console, screen=True, auto_refresh=False) as live, _keyboard() as key:
        while (record := tail.record()).status != "finished":
            size = console.size
            if drawn is None or drawn[0] is not record or drawn[1] != size:
                rows = max(4, size.height - FIXED_ROWS)
                live.update(frame(record, size.width, client_rows=rows), refresh=True)
                drawn = (record, size)
            if "q" in key(POLL_SECONDS):
                return


@contextmanager
def _keyboard() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits for keys at most some seconds, and returns what was typed.

    The end of the terminal counts as q. Without a terminal there are no keys.
    """
    is_terminal = sys.stdin.isatty()

    def key(seconds: float) -> str:
        if not is_terminal:
            time.sleep(seconds)
            return ""
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        if not ready:
            return ""
        try:  # past Python's buffer: what is in there, select would not see
            return os.read(sys.stdin.fileno(), 64).decode(errors="replace") or "q"
        except OSError:
            return "q"

    if not is_terminal:
        yield key
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)  # a key comes at once, and is not shown
    try:
        yield key
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
