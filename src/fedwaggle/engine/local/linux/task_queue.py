"""The board: a queue of tasks in shared memory, from which workers help themselves.

The server's process appends tasks; each free worker takes the next one in the order in which
they were appended. Nobody hands work out, so no worker waits for the server to notice that it
is free. A worker writes what it took into its own slot before the task counts as taken: should
it die, the slot states which task it had.

A worker sleeps by reading a pipe that holds one token for each task. The lock is a record lock
of the file: the system takes it from a process that dies. A token without a task is harmless,
so a token is added whenever a worker died, in case it had one in its hand.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from fedwaggle.engine.local.linux.shared_memory import Address

__all__ = ["Board", "Busy", "Task"]

_MOST_SLOTS = 1024
_NEVER_NS = (1 << 64) - 1
_MOST_TASKS = 32_768  # that wait; most pipes hold 65,536 tokens, but see below

# The board is an array of 64-bit words: two counters, and whether it is shut; a slot for each
# worker, a cache line each (the number in hand plus 1, since when in ns, how many tasks so far,
# how many workers so far that came for one); the ring of tasks (the letter's address, and
# whether the task is still wanted).
_APPENDED, _TAKEN, _SHUT = 0, 1, 2
_SLOTS, _SLOT_WORDS = 8, 8
_RING, _TASK_WORDS = _SLOTS + _SLOT_WORDS * _MOST_SLOTS, 4
_BYTES = 8 * (_RING + _TASK_WORDS * _MOST_TASKS)


class Task(NamedTuple):
    """A task: its number, counted from 0 in the order of appending, and where its letter lies."""

    number: int
    letter: Address


class Busy(NamedTuple):
    """What a worker is at.

    Attributes
    ----------
    slot : int
        The worker's.
    task : int
        The task that it took.
    since : float
        When, on this machine's monotonic clock (s); far in the future once the client answered.
    """

    slot: int
    task: int
    since: float


class Board:
    """One process's view of the board.

    Parameters
    ----------
    fd : int
        File descriptor of the board's memory.
    tokens_out : int
        Reading end of the pipe of tokens.
    tokens_in : int
        Its writing end; -1 in a worker, so that the pipe ends when nobody appends any more.
    """

    def __init__(self, fd: int, tokens_out: int, tokens_in: int) -> None:
        self.fd, self.tokens_out, self.tokens_in = fd, tokens_out, tokens_in
        self._words = memoryview(mmap.mmap(fd, _BYTES)).cast("Q")
        # A pipe is full when its pages are, and the one that is read from may be nearly empty.
        # The system gives few pages to a user who has many pipes.
        pipe_bytes = fcntl.fcntl(tokens_out, fcntl.F_GETPIPE_SZ)
        self._most_tasks = min(_MOST_TASKS, pipe_bytes - mmap.PAGESIZE + 1)

    @classmethod
    def create(cls) -> Board:
        """Return a new, empty board."""
        fd = os.memfd_create("waggle-board", os.MFD_CLOEXEC)
        os.ftruncate(fd, _BYTES)
        tokens_out, tokens_in = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(tokens_in, False)
        return cls(fd, tokens_out, tokens_in)

    def append(self, letter: Address) -> int | None:
        """Append a task and return its number; or nothing if the board is full."""
        number = self._words[_APPENDED]
        if number - self._words[_TAKEN] >= self._most_tasks:
            return None
        at = self._ring(number)
        self._words[at], self._words[at + 1], self._words[at + 2] = letter
        self._words[at + 3] = 1
        with self._locked():
            self._words[_APPENDED] = number + 1
        self.add_token()
        return number

    def add_token(self) -> None:
        """Wake one worker that sleeps."""
        with suppress(BlockingIOError):  # a full pipe has one for each task
            os.write(self.tokens_in, b"t")

    def shut(self) -> None:
        """Give no task away any more. Workers that wait leave once all writers have done this."""
        self._words[_SHUT] = 1
        if self.tokens_in >= 0:
            os.close(self.tokens_in)
            self.tokens_in = -1

    @property
    def is_shut(self) -> bool:
        """Whether no task is given away any more."""
        return bool(self._words[_SHUT])

    def arrive(self, slot: int) -> None:
        """Note that a worker of ``slot`` is there, and will now wait for its first task."""
        self._words[_SLOTS + _SLOT_WORDS * slot + 3] += 1

    def arrivals(self, slot: int) -> int:
        """Return how many workers of ``slot`` have arrived so far."""
        return self._words[_SLOTS + _SLOT_WORDS * slot + 3]

    def withdraw(self, number: int) -> bool:
        """Take a task back, and return whether that was in time: no worker had it."""
        with self._locked():
            if number < self._words[_TAKEN]:
                return False
            self._words[self._ring(number) + 3] = 0
        return True

    def take(self, slot: int) -> Task | None:
        """Wait for a task and take it into ``slot``; return nothing when the board is shut."""
        while os.read(self.tokens_out, 1):
            with self._locked():
                if self.is_shut:
                    return None
                number = self._words[_TAKEN]
                if number == self._words[_APPENDED]:
                    continue
                at = self._ring(number)
                serial, fd, offset, wanted = self._words[at : at + 4]
                word = _SLOTS + _SLOT_WORDS * slot
                if wanted:
                    self._words[word + 1] = time.monotonic_ns()
                    self._words[word + 2] += 1
                    self._words[word] = number + 1
                self._words[_TAKEN] = number + 1
            if wanted:
                return Task(number, Address(serial, fd, offset))
        return None

    def stop_clock(self, slot: int) -> None:
        """Note that the client of ``slot`` has answered: what is left of the task is not its."""
        self._words[_SLOTS + _SLOT_WORDS * slot + 1] = _NEVER_NS

    def finish(self, slot: int) -> None:
        """Say that the worker of ``slot`` has nothing in its hands."""
        self._words[_SLOTS + _SLOT_WORDS * slot] = 0

    def clear_slots(self, used: range) -> int:
        """Return the first of as many other slots as these, cleared for new workers."""
        first = used.stop if used.stop + len(used) <= _MOST_SLOTS else 0
        for slot in range(first, first + len(used)):
            self.finish(slot)
        return first

    def in_hand(self, slot: int) -> int | None:
        """Return the task that the worker of ``slot`` has, if any."""
        number = self._words[_SLOTS + _SLOT_WORDS * slot]
        return number - 1 if number else None

    def taken(self, slot: int) -> int:
        """Return how many tasks were ever taken into ``slot``."""
        return self._words[_SLOTS + _SLOT_WORDS * slot + 2]

    def busy(self, slots: range) -> list[Busy]:
        """Return what the workers of ``slots`` are at."""
        found = []
        for slot in slots:
            word = _SLOTS + _SLOT_WORDS * slot
            number, since_ns = self._words[word : word + 2]
            if number:
                found.append(Busy(slot, number - 1, since_ns / 1e9))
        return found

    def close(self) -> None:
        """Shut it, and give up this process's view of it."""
        self.shut()
        for fd in (self.fd, self.tokens_out):
            os.close(fd)

    def _ring(self, number: int) -> int:
        return _RING + _TASK_WORDS * (number % _MOST_TASKS)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self.fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN)
