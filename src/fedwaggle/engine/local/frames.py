"""Plain values as bytes, and bytes through files and sockets.

What crosses between processes is made of Python's own scalars, lists, tuples and dicts,
written by ``marshal``: it cannot name a class, so nothing that a client sends chooses code that
runs in the server. All processes of a run are the same interpreter, which ``marshal`` needs.
"""

from __future__ import annotations

import marshal
import os
import select
import socket
import time
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, TypeAlias

from fedwaggle.errors import EngineError

__all__ = [
    "Buffer",
    "Frame",
    "FrameSender",
    "Plain",
    "cut",
    "dump",
    "load",
    "read_all",
    "read_pieces",
    "receive_frame",
    "send_frame",
    "split",
    "wait_for_any",
    "write_all",
]

Buffer: TypeAlias = bytes | bytearray | memoryview
Plain: TypeAlias = Any  # scalars, lists, tuples and dicts, however deep

_LENGTH_BYTES = 4
_MOST_BUFFERS = 512  # the system takes at most 1,024 in one call
_INLINE_BYTES = 32_768  # a larger frame goes through a file in memory, a smaller one does not pay
_RECEIVED_BYTES = 2 * _INLINE_BYTES
_AT_ONCE_BYTES = 1_048_576
_MOST_UNREAD_BYTES = 8 << 20  # behind a sender; one frame may be larger
_MOST_UNREAD_FILES = 64  # that are small: a process may open few files, and a channel holds few
_PAUSE_SECONDS = 0.002  # of a sender that waits: a look costs it a microsecond
_LONGEST_WAIT_SECONDS = 86_400.0  # what the system can count in ms ends after 24 days
_IN_USE, _FREE = b"u", b"f"  # the first byte of a frame in memory


def dump(values: Plain) -> bytes:
    """Write plain values, with their length in front."""
    body = marshal.dumps(values)
    return len(body).to_bytes(_LENGTH_BYTES, "little") + body


def split(data: bytes) -> tuple[Plain, int]:
    """Return the values at the start of ``data``, and where they end."""
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    return marshal.loads(data[_LENGTH_BYTES:end]), end  # noqa: S302  # plain values, see above


def load(fd: int, offset: int = 0) -> tuple[Plain, int]:
    """Return the values that lie at ``offset`` of a file, and where they end."""
    start = offset + _LENGTH_BYTES
    end = start + int.from_bytes(read_all(fd, _LENGTH_BYTES, offset), "little")
    return marshal.loads(read_all(fd, end - start, start)), end  # noqa: S302  # see above


def write_all(fd: int, buffers: Sequence[Buffer]) -> int:
    """Append all bytes of all buffers to a file in memory, and return how many there were."""
    total = 0
    for start in range(0, len(buffers), _MOST_BUFFERS):
        few = buffers[start : start + _MOST_BUFFERS]
        views = [memoryview(buffer).cast("B") for buffer in few if len(buffer)]
        while views:
            written = os.writev(fd, views)
            total += written
            while views and written >= len(views[0]):
                written -= len(views.pop(0))
            if written:
                views[0] = views[0][written:]
    return total


def read_all(fd: int, length: int, offset: int) -> bytes:
    """Read exactly ``length`` bytes at ``offset`` of a file.

    Raises
    ------
    EOFError
        If the file ends before.
    """
    data = os.pread(fd, length, offset)
    if len(data) == length:
        return data
    parts = [data]  # one call moves at most 2 GiB
    while (missing := length - sum(map(len, parts))) > 0:
        part = os.pread(fd, missing, offset + length - missing)
        if not part:
            raise EOFError(f"expected {length} bytes, got {length - missing}")
        parts.append(part)
    return b"".join(parts)


def read_pieces(fd: int, sizes: Sequence[int], offset: int) -> list[bytes]:
    """Read what lies at ``offset`` of a file, in pieces of the given sizes.

    Few bytes are read at once and then cut, which is cheaper than many calls to the system;
    many are read piece by piece, so that no second copy of them is needed.
    """
    total = sum(sizes)
    if total <= _AT_ONCE_BYTES:
        return cut(read_all(fd, total, offset), sizes)
    pieces = []
    for size in sizes:
        pieces.append(read_all(fd, size, offset))
        offset += size
    return pieces


def cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Return pieces of the given sizes.

    Examples
    --------
    >>> cut(b"abcde", [2, 0, 3])
    [b'ab', b'', b'cde']
    """
    ends = list(accumulate(sizes, initial=0))
    return [data[start:end] for start, end in pairwise(ends)]


def send_frame(channel: socket.socket, values: Plain) -> None:
    """Send plain values, and nothing behind them, as one packet."""
    channel.sendall(dump(values))


class FrameSender:
    """Sends frames of any size, each as one packet.

    A large frame is written into a file in memory, and the packet carries that file: the
    receiver reads it without this process, which may be dead by then. When the receiver is done
    it marks the file as free, and it serves for the next large frame: memory that is there
    already is filled much sooner than new memory. Files that are not free yet hold a sender
    back, so that it never fills the memory with frames for which the receiver has no room.

    Parameters
    ----------
    channel : socket.socket
        Where packets go.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._unread: dict[int, int] = {}  # file descriptor to bytes, of frames not known as read
        self._spare = -1  # a file that may be written again

    def send(self, head: bytes, buffers: Sequence[Buffer] = ()) -> None:
        """Send a head (made by :func:`dump`) and the bytes behind it."""
        size = len(head) + sum(map(len, buffers))
        if size <= _INLINE_BYTES:
            self._channel.sendmsg([head, *buffers])
            return
        self.wait_until_read(max(0, _MOST_UNREAD_BYTES - size))
        fd = self._memory()
        os.ftruncate(fd, write_all(fd, [_IN_USE, head, *buffers]))
        socket.send_fds(self._channel, [b"\0"], [fd])
        self._unread[fd] = size
        if len(self._unread) > _MOST_UNREAD_FILES:  # the receiver has it open, too
            oldest = next(iter(self._unread))
            del self._unread[oldest]
            os.close(oldest)

    def wait_until_read(self, most_bytes: int = 0) -> None:
        """Wait until at most so many bytes of frames in memory have not been read."""
        self._collect_files()
        while sum(self._unread.values()) > most_bytes:
            time.sleep(_PAUSE_SECONDS)
            self._collect_files()

    def _collect_files(self) -> None:
        """Take back the files that were read; one is kept, to be written again."""
        for fd in [fd for fd in self._unread if os.pread(fd, 1, 0) == _FREE]:
            del self._unread[fd]
            if self._spare >= 0:
                os.close(self._spare)
            self._spare = fd

    def _memory(self) -> int:
        """Return a file in memory that nobody reads, to be written from its start."""
        fd, self._spare = self._spare, -1
        if fd < 0:
            return os.memfd_create("waggle-frame", os.MFD_CLOEXEC)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd


def wait_for_any(channels: Sequence[socket.socket], seconds: float | None) -> list[socket.socket]:
    """Wait until channels can be read or have ended, and return these; none if time is up.

    ``select.select`` cannot: it knows no file descriptor above 1,023, and this process may be
    one that has many files open.

    Parameters
    ----------
    channels : Sequence[socket.socket]
        Where packets come from.
    seconds : float | None
        For how long, at most; a wait of more than a day is cut short. None waits for ever.
    """
    poll = select.poll()
    for channel in channels:
        poll.register(channel, select.POLLIN)
    found = poll.poll(None if seconds is None else 1_000 * min(seconds, _LONGEST_WAIT_SECONDS))
    ready = {fd for fd, _ in found}
    return [channel for channel in channels if channel.fileno() in ready]


def receive_frame(channel: socket.socket) -> Frame | None:
    """Receive one packet; return nothing if there is nobody left who could send one.

    Raises
    ------
    EngineError
        If this process may open no more files: what a large frame carries is lost then.
    """
    data, fds, flags, _ = socket.recv_fds(channel, _RECEIVED_BYTES, 1)
    if not data:
        return None
    if flags & socket.MSG_CTRUNC:
        raise EngineError(
            "a reply was lost, because this process has as many files open as it may; "
            "allow it more before the start, for example with `ulimit -n 4096`"
        )
    if fds:
        return Frame(*load(fds[0], len(_IN_USE)), fd=fds[0])
    return Frame(*split(data), data=data)


class Frame:
    """A packet that was received.

    Attributes
    ----------
    values : Plain
        What its head states.
    """

    def __init__(self, values: Plain, end: int, *, data: bytes = b"", fd: int = -1) -> None:
        self.values = values
        self._at, self._data, self._fd = end, data, fd

    def buffers(self, sizes: Sequence[int]) -> list[bytes]:
        """Return the next bytes behind the head, cut into pieces of the given sizes."""
        total = sum(sizes)
        at, self._at = self._at, self._at + total
        if self._fd < 0:
            return cut(self._data[at : at + total], sizes)
        return read_pieces(self._fd, sizes, at)

    def close(self) -> None:
        """Give the memory behind the frame back; its buffers are copies and stay."""
        if self._fd >= 0:
            os.pwrite(self._fd, _FREE, 0)
            os.close(self._fd)
            self._fd = -1

    __del__ = close
