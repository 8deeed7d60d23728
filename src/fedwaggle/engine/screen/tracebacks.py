"""Tracebacks of clients: each distinct one is shown once, the others are counted.

A worker sends a traceback as one line, so that it arrives in one piece and is known for what it
is. The server's process takes it apart again.
"""

from __future__ import annotations

import re
import select
import traceback
from collections.abc import Sequence
from types import TracebackType

__all__ = ["SeenTracebacks", "packed", "unpacked"]

_END_OF_LINE = "\x1e"
_MARK = f"{_END_OF_LINE}raised{_END_OF_LINE}"
_MOST_BYTES = select.PIPE_BUF - 256  # a longer line would not arrive in one piece
_LONGEST_LINE = 1_000  # characters
_MOST_KNOWN = 1_000  # clients choose the words of what they raise


def packed(error: BaseException) -> str:
    """Return an exception's traceback as one line; of a long one, the first frames are left out.

    Examples
    --------
    >>> unpacked("[client 3] " + packed(ValueError("a, b")))
    ['[client 3] the ClientApp raised an exception', '[client 3] ValueError: a, b']
    """
    trace = _own_frames(error.__traceback__)
    text = (
        "".join(traceback.format_exception(type(error), error, trace))
        .replace("\r", "")
        .replace(_END_OF_LINE, "")
    )
    lines = [line[:_LONGEST_LINE] for line in text.splitlines()]
    while len(_joined(lines).encode(errors="replace")) > _MOST_BYTES:
        del lines[0]
    return _joined(lines)


def _own_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the app's first frame on; the way there is Flower's and ours."""
    frame = trace
    while frame is not None:
        module = str(frame.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in ("fedwaggle", "flwr"):
            return frame
        frame = frame.tb_next
    return trace


def _joined(lines: Sequence[str]) -> str:
    return _MARK + _END_OF_LINE.join(lines)


def unpacked(line: str) -> list[str] | None:
    """Return the lines of a traceback, each behind its client's label; None if it is another line.

    Parameters
    ----------
    line : str
        A line of a client, with the label in front.
    """
    label, mark, text = line.partition(_MARK)
    if not mark:
        return None
    lines = ["the ClientApp raised an exception", *text.split(_END_OF_LINE)]
    return [f"{label}{each}" for each in lines]


class SeenTracebacks:
    """Remembers which tracebacks were shown, and counts those that were not.

    Attributes
    ----------
    repeats : int
        How many were like one before.
    """

    def __init__(self) -> None:
        self.repeats = 0
        self._known: set[int] = set()

    def is_new(self, lines: Sequence[str]) -> bool:
        """Return whether no traceback like it came before; numbers in it do not count."""
        kind = hash(re.sub(r"0x[0-9a-f]+|\d+", "#", "\n".join(lines)))
        if kind in self._known:
            self.repeats += 1
            return False
        if len(self._known) < _MOST_KNOWN:
            self._known.add(kind)
        return True
