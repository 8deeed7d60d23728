"""What clients print: each line with the client's name in front, through the server's process.

Workers do not write to the terminal themselves, where their lines would tear each other and
the progress bars apart. They write whole lines into one pipe, and a thread of the server's
process prints them. Lines up to ``PIPE_BUF`` (4,096 bytes) arrive whole; longer ones in pieces.
What is no ``print``, such as the output of a program that a client starts, goes to file
descriptors 1 and 2. These are the server's own: it comes out in the same place, without a name.
"""

from __future__ import annotations

import io
import logging
import os
import select
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["ClientStream", "OutputReader", "redirect_output"]

_PIECE_BYTES = select.PIPE_BUF - 96  # leaves room for the stream's number and the label
_LONGEST_LABEL = 80

_logger = logging.getLogger("flwr.fedwaggle.engine")


class ClientStream(io.RawIOBase):
    """What lies under ``sys.stdout`` in a worker: sends whole lines into a pipe, labelled.

    Parameters
    ----------
    fd : int
        Where lines are written: the stream's number, the label, a tab, the text, a line's end.
    number : int
        The file descriptor that the stream stands for: 1, standard output, or 2, standard error.
    """

    def __init__(self, fd: int, number: int) -> None:
        self.label = ""
        self._fd = fd
        self._number = number
        self._rest = b""

    def fileno(self) -> int:
        """Where a program that a client starts is to write."""
        return self._number

    def writable(self) -> bool:
        """Yes."""
        return True

    def close(self) -> None:
        """Stay open: the next client prints here, too."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Take bytes; what makes a whole line is sent."""
        new = bytes(memoryview(data))
        *lines, rest = (self._rest + new).split(b"\n")
        self._rest = _shown(rest) + b"\r" * rest.endswith(b"\r")
        for line in lines:
            self._send(_shown(line))
        return len(new)

    def finish(self) -> None:
        """Send what has no line's end yet. ``flush`` does not: half a line is for the eyes only."""
        if (line := _shown(self._rest)).strip():
            self._send(line)
        self._rest = b""

    def _send(self, line: bytes) -> None:
        head = f"{self._number}{self.label[:_LONGEST_LABEL]}\t".encode(errors="replace")
        for start in range(0, max(1, len(line)), _PIECE_BYTES):
            os.write(self._fd, head + line[start : start + _PIECE_BYTES] + b"\n")


def _shown(line: bytes) -> bytes:
    """Return what a terminal would show of a line that is drawn over: the last drawing."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def redirect_output(fd: int, label: str) -> Callable[[str], None]:
    """Send this process's ``sys.stdout`` and ``sys.stderr`` into a pipe from now on.

    Parameters
    ----------
    fd : int
        Writing end of the pipe.
    label : str
        What stands in front of each line, until another is set.

    Returns
    -------
    Callable[[str], None]
        Ends the lines that are open, and sets the next label.
    """
    streams = [ClientStream(fd, 1), ClientStream(fd, 2)]
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(cast("BinaryIO", stream), "utf-8", "replace", write_through=True)
        for stream in streams
    )

    def set_label(label: str) -> None:
        for text in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # a client may have put its own
                text.flush()
        for stream in streams:
            stream.finish()
            stream.label = label

    set_label(label)
    return set_label


class OutputReader:
    """Prints what comes through the pipe, in a thread, until the pipe ends.

    Parameters
    ----------
    show : Callable[[str, bool], None]
        Prints one line; the flag states whether it belongs to standard error. If it raises, the
        line is dropped, and the first time this is said.
    """

    def __init__(self, show: Callable[[str, bool], None]) -> None:
        self._show = show
        self._has_said = False
        self._out, self.fd = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._read, name="client-output", daemon=True)
        self._thread.start()

    def close(self, seconds: float = 2.0) -> None:
        """Give up the writing end, and print what is left in the pipe."""
        os.close(self.fd)
        self._thread.join(seconds)

    def _read(self) -> None:
        with os.fdopen(self._out, "rb") as lines:
            for line in lines:
                label, _, text = line.decode(errors="replace").rstrip("\n").partition("\t")
                try:
                    self._show(f"{label[1:]}{text}", label[:1] == "2")
                except Exception as error:  # noqa: BLE001  # else each print of a client would fail
                    self._say_once(error)

    def _say_once(self, error: Exception) -> None:
        if not self._has_said:
            self._has_said = True
            _logger.warning("what clients print cannot be shown (%s)", error)
