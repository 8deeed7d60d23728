"""Payloads in shared memory: written once by the server's process, read by every worker.

A parcel is an anonymous file in memory. It has no name in any folder, so there is nothing to
clean up: it is gone when the last process that has it open closes it or dies, also by
``kill -9``. A worker opens it by way of ``/proc/<pid of the server's process>/fd``.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

from fedwaggle.engine.local.frames import Buffer, write_all
from fedwaggle.errors import EngineError

__all__ = ["Address", "Parcel", "ParcelReader"]

_serials = count(1)


class Address(NamedTuple):
    """Where something lies: plain numbers, so that it can be sent.

    Attributes
    ----------
    serial : int
        The parcel; no other parcel of this process ever has the same number.
    fd : int
        Its file descriptor in the process that wrote it.
    offset : int
        The first byte.
    """

    serial: int
    fd: int
    offset: int


class Parcel:
    """A file in memory to put payloads in; it is closed when nobody holds the object.

    Raises
    ------
    EngineError
        If this process has as many files open as it may.
    """

    def __init__(self) -> None:
        self.serial = next(_serials)
        self._fd = -1
        self._size = 0
        try:
            self._fd = os.memfd_create(f"waggle-parcel-{self.serial}", os.MFD_CLOEXEC)
        except OSError as error:
            if error.errno == errno.EMFILE:
                raise EngineError(_too_many_files()) from error
            raise

    def put(self, buffers: Sequence[Buffer]) -> Address:
        """Append bytes and return where they lie."""
        address = Address(self.serial, self._fd, self._size)
        self._size += write_all(self._fd, buffers)
        return address

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


class ParcelReader:
    """Reads parcels of another process; keeps the one that it read last open.

    Parameters
    ----------
    pid : int
        The process that writes them.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._serial = 0
        self._fd = -1

    def open(self, address: Address) -> int:
        """Return a file descriptor of a parcel; it stays open until another is asked for."""
        if address.serial != self._serial:
            self.close()
            self._fd = os.open(f"/proc/{self._pid}/fd/{address.fd}", os.O_RDONLY | os.O_CLOEXEC)
            self._serial = address.serial
        return self._fd

    def close(self) -> None:
        """Close what is open."""
        if self._serial:
            os.close(self._fd)
        self._serial = 0


def _too_many_files() -> str:
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"expected to need at most {most} open files, which is this process's limit: each call of "
        "push_messages keeps one open until all of its messages are answered; push more messages "
        "in one call, wait for replies in between, or raise the limit (ulimit -n)"
    )
