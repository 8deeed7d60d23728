"""The lines of a record, read so that a damaged line costs nothing but itself.

A flipped bit, a torn write or the zeros that a crash leaves in a file spoil one line. It is
skipped, with one warning for the file, and all other lines are read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from fedwaggle.errors import RunError

__all__ = ["MOST_LINE_BYTES", "Lines"]

MOST_LINE_BYTES = 1 << 26
"""A longer line is damaged: it is not even held in memory."""

logger = logging.getLogger("flwr.fedwaggle.runs")

T = TypeVar("T")

_warned: set[Path] = set()  # a file is often read more than once, and warned of once


class Lines:
    """The whole lines of a file that may still grow; each read goes on where the last ended.

    Parameters
    ----------
    path : Path
        The file.

    Attributes
    ----------
    offset : int
        How much of it was read: whole lines (bytes).
    damaged : int
        Lines that were skipped so far.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.offset = 0
        self._number = 0
        self._first = ""  # the first damaged line: where it is, and what is wrong with it
        self.damaged = 0

    def read(self, parse: Callable[[bytes], T], *, until: int | None = None) -> Iterator[T]:
        """Yield what ``parse`` makes of each new line.

        A last line without its end is still being written, or never was to its end: it is
        left for the next read.

        Parameters
        ----------
        parse : Callable[[bytes], T]
            Reads a line; it raises RunError if the line is damaged.
        until : int | None (default: None)
            Where to stop (bytes); None reads to the end.

        Raises
        ------
        RunError
            If the file cannot be read.
        """
        try:
            file = self._path.open("rb")  # closed below
        except OSError as error:
            raise RunError(
                f"{self._path}: expected the events of a run, but {error.strerror}"
            ) from error
        with file:
            file.seek(self.offset)
            try:
                while until is None or self.offset < until:
                    line = _next_line(file)
                    if line is None:
                        return
                    self.offset, self._number = file.tell(), self._number + 1
                    try:
                        parsed = parse(line)
                    except RunError as error:
                        self._skip(str(error))
                        continue
                    yield parsed
            finally:
                if self.damaged:
                    _warn(self._path, self.damaged, self._first)

    def _skip(self, reason: str) -> None:
        self.damaged += 1
        self._first = self._first or f"line {self._number}: {reason}"


def _next_line(file: BinaryIO) -> bytes | None:
    """Return the next line with its end, or None; of one that is too long, only its beginning."""
    line = file.readline(MOST_LINE_BYTES)
    end = line
    while end and not end.endswith(b"\n"):
        end = file.readline(MOST_LINE_BYTES)
    return line if end else None


def _warn(path: Path, damaged: int, first: str) -> None:
    if path in _warned:
        return
    _warned.add(path)
    many = "a damaged line is" if damaged == 1 else f"{damaged:,} damaged lines are"
    logger.warning("%s: %s skipped; %s", path, many, first)
