"""The workers of the fork server: started, replaced when one ends, and let go in the end."""

from __future__ import annotations

import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fedwaggle.engine.local.frames import receive_frame, wait_for_any
from fedwaggle.engine.local.linux.launch import PARENT_ENDED, command, die_with_parent, run_worker
from fedwaggle.engine.local.linux.leaving import LEAVING_SECONDS, Inheritance, leave
from fedwaggle.engine.local.linux.protocol import Failed, Kill, Leave, LostTask, decode, encode
from fedwaggle.engine.local.linux.setup import Setup
from fedwaggle.engine.local.linux.task_queue import Board
from fedwaggle.engine.local.seeding import SeedWatch

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp

__all__ = ["Forker", "Imported", "Spawner", "Starter", "Workers"]

_MOST_FRUITLESS_EXITS = 3  # in a row, of workers that never got to wait: something is wrong
_STOPPING = (signal.SIGTERM, PARENT_ENDED)  # what makes the fork server stop
_GRACE_SECONDS = LEAVING_SECONDS + 1.0  # a worker that leaves ends itself before


class Starter(Protocol):
    """Starts the worker of a slot, in its own process group, and returns its pid."""

    def __call__(self, index: int, slot: int) -> int:
        """Start one worker: its index among the workers, and its slot on the board."""


class Spawner:
    """Starts workers as fresh interpreters.

    Parameters
    ----------
    setup : Setup
        The run.
    setup_fd : int
        Where it is written.
    """

    def __init__(self, setup: Setup, setup_fd: int) -> None:
        self._devices = setup.devices
        self._setup_fd = setup_fd
        for fd in (setup_fd, *setup.descriptors):
            os.set_inheritable(fd, True)

    def __call__(self, index: int, slot: int) -> int:
        """Start one worker."""
        environment = dict(os.environ)
        if self._devices:
            environment["CUDA_VISIBLE_DEVICES"] = self._devices[index]
        words = command("launch.work", self._setup_fd, slot, os.getpid())
        return os.posix_spawn(words[0], words, environment, setpgroup=0)


@dataclass(frozen=True)
class Imported:
    """What the fork server imported, and its forks share.

    Attributes
    ----------
    app : ClientApp
        The app.
    seeds : SeedWatch | None
        Which random numbers it seeded; nothing if each message has its own.
    inheritance : Inheritance
        What it left open.
    """

    app: ClientApp
    seeds: SeedWatch | None
    inheritance: Inheritance


class Forker:
    """Starts workers as copies of this process.

    Parameters
    ----------
    setup, board, imported : Setup, Board, Imported
        The run, the board, and what all workers share.
    set_label : Callable[[str], None]
        Sets what stands in front of printed lines.
    control_fd : int
        The fork server's channel, which no worker may hold.
    """

    def __init__(
        self,
        setup: Setup,
        board: Board,
        imported: Imported,
        set_label: Callable[[str], None],
        control_fd: int,
    ) -> None:
        self._setup, self._board, self._imported = setup, board, imported
        self._set_label, self._control_fd = set_label, control_fd

    def __call__(self, index: int, slot: int) -> int:
        """Start one worker."""
        fork_server_pid = os.getpid()
        # What a signal raises while modules prepare for the fork, Python prints and drops.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
        pid = os.fork()
        if pid:
            with suppress(OSError):  # the child does it, too: whoever comes first
                os.setpgid(pid, pid)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
            return pid
        status = 1
        try:
            self._leave_fork_server(fork_server_pid)
            if self._imported.seeds is not None:
                self._imported.seeds.settle()
            app = self._imported.app
            status = run_worker(self._setup, app, self._board, slot, self._set_label)
        except BaseException:  # noqa: BLE001  # nothing of the fork server may run in its copy
            traceback.print_exc()
        finally:
            leave(status, self._imported.inheritance.streams)

    def _leave_fork_server(self, fork_server_pid: int) -> None:
        """Give up what is the fork server's: its signals, its channel, its right to add tokens."""
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in (*_STOPPING, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
        die_with_parent(signal.SIGKILL, fork_server_pid)
        os.close(self._control_fd)
        os.close(self._board.tokens_in)


class Workers:
    """Keeps the workers alive, and reports each that died to the server's process.

    Parameters
    ----------
    setup, board : Setup, Board
        The run, and the board.
    control : socket.socket
        The channel to the server's process.
    start : Starter
        Starts one worker.
    """

    def __init__(self, setup: Setup, board: Board, control: socket.socket, start: Starter) -> None:
        self._setup, self._board, self._control, self._start = setup, board, control, start
        self._index_of: dict[int, int] = {}  # pid to index
        self._arrivals_before: dict[int, int] = {}  # index to how many workers its slot had seen
        self._fruitless = 0
        self._deadline: float | None = None  # for the workers to leave, once they are to

    def watch(self) -> None:
        """Start the workers, and replace each that ends, until they are to leave.

        Returns when the last of them has left, or its time is up, or the channel is closed.
        """
        woken, waker = socket.socketpair()
        for end in (woken, waker):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, so that the byte is written
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        try:
            for index in range(self._setup.workers):
                self._add(index)
            self._watch(woken)
        finally:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _watch(self, woken: socket.socket) -> None:
        while (left := self._seconds_left()) is None or (left > 0.0 and self._index_of):
            ready = wait_for_any([self._control, woken], left)
            if woken in ready:
                woken.recv(4096)
                self._reap()
            if self._control in ready:
                frame = receive_frame(self._control)
                if frame is None:
                    return
                match decode(frame.values):
                    case Leave():
                        self._let_leave()
                    case Kill(slot, task):
                        self._kill(slot, task)

    def _seconds_left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _let_leave(self) -> None:
        """Have the workers end in order; what a client is still at, nobody waits for."""
        self._deadline = time.monotonic() + _GRACE_SECONDS
        self._board.shut()
        for pid, index in self._index_of.items():
            if self._board.in_hand(self._setup.first_slot + index) is not None:
                os.kill(pid, signal.SIGTERM)

    def kill_all(self) -> None:
        """End all workers, with whatever they started, and wait for them."""
        for pid in self._index_of:
            _kill_group(pid)
        for pid in self._index_of:
            os.waitpid(pid, 0)

    def _add(self, index: int) -> None:
        slot = self._setup.first_slot + index
        self._arrivals_before[index] = self._board.arrivals(slot)
        self._index_of[self._start(index, slot)] = index

    def _kill(self, slot: int, task: int) -> None:
        """End the worker of a slot, if it still has the task that it is to be ended for."""
        if self._board.in_hand(slot) == task:
            for pid, index in self._index_of.items():
                if index == slot - self._setup.first_slot:
                    _kill_group(pid)

    def _reap(self) -> None:
        while self._index_of:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            if pid in self._index_of:
                _kill_group(pid)  # what it started does not outlive it
                self._replace(self._index_of.pop(pid), status)

    def _replace(self, index: int, status: int) -> None:
        """Say which task an ended worker had, if any, and start another in its place."""
        if self._deadline is not None:
            return
        slot = self._setup.first_slot + index
        task = self._board.in_hand(slot)
        if task is not None:
            by_signal = os.WIFSIGNALED(status)
            self._control.sendall(encode(LostTask(task, _how_it_ended(status), by_signal)))
        self._board.finish(slot)  # only now: should this process die here, the slot still shows it
        if status:
            self._board.add_token()
        # One that was killed while it waited is no sign that others could not work.
        has_arrived = self._board.arrivals(slot) > self._arrivals_before[index]
        self._fruitless = 0 if has_arrived else self._fruitless + 1
        if self._fruitless < _MOST_FRUITLESS_EXITS:
            self._add(index)
        else:
            text = f"workers end before they take a message: {_how_it_ended(status)}"
            self._control.sendall(encode(Failed(text)))


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _how_it_ended(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"its process ended with exit code {code}"
    names = {known.value: known.name for known in signal.Signals}
    return f"its process was ended by {names.get(-code, f'signal {-code}')}"
