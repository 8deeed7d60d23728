"""Files that a crash, a full disk or a reader in between cannot spoil.

Either a file is replaced: the bytes go to a temp file in the same folder, are synced, and are
then renamed over the name, so that a reader sees the old file or the new one. Or it grows by
whole lines: what is left of a line that could not be written is cut off again.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["LineFile", "publish", "staged", "write_atomic"]

_LOCK_TRIES = 20
_LOCK_PAUSE_SECONDS = 0.01


@contextmanager
def staged(path: Path, write: Callable[[BinaryIO], object]) -> Iterator[Path]:
    """Write a temp file beside ``path``, whole and synced, for :func:`publish` to rename.

    Staging is what can fail (the disk is full); a rename hardly can. So several files can be
    staged first, and then be published one right after the other.

    Parameters
    ----------
    path : Path
        Where the file shall be in the end.
    write : Callable[[BinaryIO], object]
        Writes the content into an open binary file.

    Yields
    ------
    Path
        The temp file; it is removed at the end unless it was published.

    Raises
    ------
    OSError
        If it cannot be written. Whatever ``write`` raises passes through, too.
    """
    # A rename is atomic only within one file system, hence the same folder.
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temp.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # the bytes are on disk before the name points at them
        yield temp
    finally:
        temp.unlink(missing_ok=True)


def publish(temp: Path, path: Path) -> None:
    """Rename a staged file over its final name, and sync the folder that holds both.

    Raises
    ------
    OSError
        If it cannot be renamed.
    """
    temp.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # a rename is a change of the folder
    finally:
        os.close(folder)


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` so that a reader sees the old file or the new one, never a part.

    Raises
    ------
    OSError
        If it cannot be written; the old file is then as it was.
    """
    with staged(path, lambda file: file.write(data)) as temp:
        publish(temp, path)


class LineFile:
    """A text file that only ever grows by whole lines, and has one writer at a time.

    A line that cannot be written waits in memory, and so do those after it, until a later
    call can write them all in their order. What a writer that was killed left of a line is cut
    off when the file is opened again.

    Parameters
    ----------
    path : Path
        The file; it is made if it is not there.

    Raises
    ------
    BlockingIOError
        If another process has it open.
    OSError
        If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            _lock(self._fd)
            self._whole = _end_of_last_line(self._fd)  # bytes
            os.ftruncate(self._fd, self._whole)
        except OSError:
            os.close(self._fd)
            raise
        self._torn = False
        self._waiting: deque[bytes] = deque()
        self._sync_due = False

    @property
    def waiting(self) -> int:
        """Lines that are not in the file yet."""
        return len(self._waiting)

    def append(self, line: str, *, sync: bool = False) -> None:
        """Add a line.

        Parameters
        ----------
        line : str
            The text, without the line's end.
        sync : bool
            Whether the line must be on the disk, not only with the system, on return.

        Raises
        ------
        OSError
            If it cannot be written now; the line is kept and tried again by the next call.
        """
        self._waiting.append(line.encode() + b"\n")
        self._sync_due |= sync
        self.flush()

    def flush(self) -> None:
        """Write the lines that wait.

        Raises
        ------
        OSError
            If one cannot be written; it and those after it are kept.
        """
        try:
            while self._waiting:
                self._write(self._waiting[0])
                self._waiting.popleft()
        except OSError:
            with suppress(OSError):  # what cannot be cut now is cut before the next write
                self._cut()
            raise
        if self._sync_due:
            os.fsync(self._fd)
            self._sync_due = False

    def close(self) -> None:
        """Write the lines that wait, if there is room now, and close the file."""
        if self._fd >= 0:
            with suppress(OSError):
                self.flush()
            os.close(self._fd)
            self._fd = -1  # the number may soon be another file's

    def _write(self, line: bytes) -> None:
        self._cut()
        self._torn = True
        rest = memoryview(line)
        while rest:  # on a disk with a little room left, the first write is a short one
            rest = rest[os.write(self._fd, rest) :]
        self._whole += len(line)
        self._torn = False

    def _cut(self) -> None:
        if self._torn:
            os.ftruncate(self._fd, self._whole)
            self._torn = False


def _lock(fd: int) -> None:
    """Take the lock of the one writer; a reader that looks who writes holds it for an instant."""
    for _ in range(_LOCK_TRIES - 1):
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_LOCK_PAUSE_SECONDS)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _end_of_last_line(fd: int, *, step: int = 65_536) -> int:
    """Return the offset behind the last line's end, 0 if there is none."""
    end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - step)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
