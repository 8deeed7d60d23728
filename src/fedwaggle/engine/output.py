"""What clients print: each line with the client's name in front, through the server's process.

Workers do not write to the terminal themselves, where their lines would tear each other and
the progress bars apart. They write whole lines into one pipe, and a thread of the server's
process prints them. Lines up to ``PIPE_BUF`` (4,096 bytes) arrive whole; longer ones in pieces.
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
from collections.abc import Callable

__all__ = ["ClientStream", "OutputReader", "redirect_output"]

_PIECE_BYTES = select.PIPE_BUF - 96  # leaves room for the stream's letter and the label
_LONGEST_LABEL = 80


class ClientStream(io.TextIOBase):
    """A text stream that sends whole lines into a pipe, labelled.

    Parameters
    ----------
    fd : int
        Where lines are written: the stream's letter, the label, a tab, the text, a line's end.
    letter : str
        ``o`` for what goes to standard output, ``e`` for standard error.
    """

    def __init__(self, fd: int, letter: str) -> None:
        self.label = ""
        self._fd = fd
        self._letter = letter
        self._rest = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only here
        """The encoding, which some libraries ask for."""
        return "utf-8"

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Take text; what makes a whole line is sent."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._send(line)
        return len(text)

    def finish(self) -> None:
        """Send what has no line's end yet. ``flush`` does not: half a line is for the eyes only."""
        if self._rest:
            self._send(self._rest)
            self._rest = ""

    def _send(self, line: str) -> None:
        last = line.rsplit("\r", 1)[-1]  # what a terminal would show of a line drawn over
        head = f"{self._letter}{self.label[:_LONGEST_LABEL]}\t".encode(errors="replace")
        data = last.encode(errors="replace")
        for start in range(0, max(1, len(data)), _PIECE_BYTES):
            os.write(self._fd, head + data[start : start + _PIECE_BYTES] + b"\n")


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
    streams = [ClientStream(fd, "o"), ClientStream(fd, "e")]
    sys.stdout, sys.stderr = streams

    def set_label(label: str) -> None:
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
        Prints one line; the flag says whether it belongs to standard error.
    """

    def __init__(self, show: Callable[[str, bool], None]) -> None:
        self._show = show
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
                self._show(f"{label[1:]}{text}", label[:1] == "e")
