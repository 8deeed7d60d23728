"""The pool of worker processes, from the server's side.

It reads two sockets: replies come from the workers, and the fork server reports which worker died
over which task. Both are waited for together, so nothing is polled.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedwaggle.engine.local.frames import Frame, receive_frame, wait_for_any
from fedwaggle.engine.local.linux.client_output import OutputReader
from fedwaggle.engine.local.linux.launch import command
from fedwaggle.engine.local.linux.leaving import LEAVING_SECONDS
from fedwaggle.engine.local.linux.protocol import (
    Content,
    Erred,
    Expired,
    Failed,
    Kill,
    Leave,
    LostTask,
    Ready,
    Words,
    decode,
    encode,
)
from fedwaggle.engine.local.linux.setup import Setup
from fedwaggle.engine.local.linux.task_queue import Board
from fedwaggle.engine.local.pool import MOST_OUTCOMES, Answered, Lost, Outcome
from fedwaggle.errors import EngineError

if TYPE_CHECKING:  # Flower is imported while the workers start, not before
    from fedwaggle.engine.local.linux.sending import Packed, ParcelSender, Placed

__all__ = ["WorkerPool"]

_MOST_FORK_SERVERS = 4  # without a reply in between: one that is killed is replaced, if it can work
_PATIENCE_SECONDS = 5.0  # for processes that were asked to end


class WorkerPool:
    """The worker processes of a run.

    Parameters
    ----------
    setup : Setup
        The run; its file descriptors are filled in here.
    environment : Mapping[str, str]
        Environment of the workers.
    client_timeout : float | None
        Seconds after which a client that has not answered is ended, with its worker.
    show_line : Callable[[str, bool], None]
        Prints a line of a client; the flag states whether it belongs to standard error.
    report : Callable[[str], None]
        Takes a line on what happens to workers.

    Attributes
    ----------
    is_ready : bool
        Whether a worker has imported the app. ``collect`` returns when this becomes true.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        environment: Mapping[str, str],
        client_timeout: float | None,
        show_line: Callable[[str, bool], None],
        report: Callable[[str], None],
    ) -> None:
        self._environment = dict(environment)
        self._client_timeout = client_timeout
        self._report = report
        self._board = Board.create()
        self._replies, self._workers_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._replies.setblocking(False)
        self._output = OutputReader(show_line)
        self._setup = replace(
            setup,
            board=self._board.fd,
            tokens_out=self._board.tokens_out,
            tokens_in=self._board.tokens_in,
            replies=self._workers_end.fileno(),
            output=self._output.fd,
        )
        self.is_ready = False
        self._placed: Placed | None = None
        self._lost: list[Lost] = []  # not reported yet
        self._hung: set[int] = set()  # tasks whose workers were asked to end
        self._fork_servers = 0
        self._start_fork_server()

    def sender(self) -> ParcelSender:
        """Return a sender for the messages of one push."""
        from fedwaggle.engine.local.linux.sending import ParcelSender, Placed

        if self._placed is None:
            self._placed = Placed()
        return ParcelSender(self._placed)

    def submit(self, packed: Packed, partition: int, state: bytes) -> int | None:
        """Append a task, and return its number; or nothing if too many wait already."""
        return self._board.append(packed.letter(partition, state))

    def withdraw(self, task: int) -> bool:
        """Take a task back, and return whether no worker had it yet."""
        return self._board.withdraw(task)

    def collect(self, timeout: float | None) -> list[Outcome]:
        """Wait until something happened, or for so long, and return what became of tasks.

        With ``MOST_OUTCOMES`` or more, others may be there already.

        Parameters
        ----------
        timeout : float | None
            Seconds; 0 only looks, and None waits for ever.

        Raises
        ------
        EngineError
            If the app cannot be imported in a worker, or workers keep ending.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            limits = (left, self._end_hung_clients(), 0.0 if self._lost else None)
            waits = [seconds for seconds in limits if seconds is not None]
            ready = wait_for_any([self._replies, self._control], min(waits, default=None))
            if self._control in ready:
                self._lost += self._hear_fork_server()
            was_ready = self.is_ready
            outcomes: list[Outcome] = [*self._receive_replies()]
            if len(outcomes) < MOST_OUTCOMES:
                # Losses go last: a worker's replies were sent before its death.
                outcomes += self._lost
                self._lost = []
            if outcomes or left == 0.0 or self.is_ready != was_ready:
                return outcomes

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.close(in_order=kind is None)

    def close(self, *, in_order: bool = False) -> None:
        """End all workers, with whatever they started.

        Parameters
        ----------
        in_order : bool
            Whether workers that have imported the app get a few seconds to end as programs do,
            with their exit handlers and what they have not written yet.
        """
        try:
            if in_order and self.is_ready:
                self._let_workers_leave()
        finally:
            self._end_at_once()

    def _let_workers_leave(self) -> None:
        self._board.shut()
        with suppress(OSError, subprocess.TimeoutExpired):  # the fork server is dead, or stuck
            self._tell(Leave())
            self._process.wait(LEAVING_SECONDS + _PATIENCE_SECONDS)

    def _end_at_once(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.returncode:  # it was killed
            _kill_session(self._process.pid)
        self._control.close()
        self._workers_end.close()
        self._output.close()
        self._replies.close()
        self._board.close()

    def _start_fork_server(self) -> None:
        self._fork_servers += 1
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        setup_fd = self._setup.write()
        with theirs:
            self._process = subprocess.Popen(
                command("fork_server.serve", setup_fd, theirs.fileno(), os.getpid()),
                stdin=subprocess.DEVNULL,
                pass_fds=(
                    setup_fd,
                    theirs.fileno(),
                    self._setup.tokens_in,
                    *self._setup.descriptors,
                ),
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for the server's process, which ends the rest
            )
        os.close(setup_fd)

    def _tell(self, words: Words) -> None:
        self._control.sendall(encode(words))

    def _receive_replies(self) -> list[Answered]:
        answers: list[Answered] = []
        while len(answers) < MOST_OUTCOMES:
            try:
                frame = receive_frame(self._replies)
            except BlockingIOError:
                return answers
            if frame is None:
                return answers
            match decode(frame.values):
                case Failed(text):
                    raise EngineError(_import_error(text))
                case Ready():
                    self.is_ready = True
                case words:
                    answers.append(_answered(words, frame))
                    # This one works; should a client kill it, others may follow.
                    self._fork_servers = 1
        return answers

    def _hear_fork_server(self) -> list[Lost]:
        try:
            frame = receive_frame(self._control)
        except ConnectionResetError:  # it died over something unread; what it said comes next
            return []
        if frame is None:
            return self._replace_fork_server()
        match decode(frame.values):
            case Failed(text):
                raise EngineError(_import_error(text))
            case LostTask(task, reason, by_signal):
                if task in self._hung:
                    reason, by_signal = self._hung_reason(), False
                self._report(f"a worker was replaced: {reason}")
                return [Lost(task, reason, by_signal)]
            case Ready(why_spawn) if why_spawn:
                self._report(f"each worker imports the ClientApp by itself: {why_spawn}")
        return []

    def _hung_reason(self) -> str:
        return f"it did not answer within client-timeout ({self._client_timeout:g} s)"

    def _replace_fork_server(self) -> list[Lost]:
        """Start another fork server; the workers of the one that died have died with it."""
        status = self._process.wait()
        _kill_session(self._process.pid)
        if self._fork_servers == _MOST_FORK_SERVERS:
            raise EngineError(f"the process that starts workers keeps dying (status {status})")
        lost = [
            Lost(task, self._hung_reason(), by_signal=False)
            if task in self._hung
            else Lost(task, "its process was ended", by_signal=True)
            for _, task, _ in self._board.busy(self._slots)
        ]
        # A worker in its last breath may still write into its slot, so these are not used again
        # before many more have died.
        self._setup = replace(self._setup, first_slot=self._board.clear_slots(self._slots))
        self._control.close()
        self._start_fork_server()
        for _ in range(self._setup.workers):
            self._board.add_token()  # each of the dead may have had one in its hand
        self._report(f"the process that starts workers died (status {status}), and was replaced")
        return lost

    def _end_hung_clients(self) -> float | None:
        """Have overdue clients ended, and return the seconds until the next one may be overdue."""
        if self._client_timeout is None:
            return None
        now = time.monotonic()
        next_due = self._client_timeout  # of a client that starts now
        for busy in self._board.busy(self._slots):
            due = busy.since + self._client_timeout - now
            if due > 0:
                next_due = min(next_due, due)
            elif busy.task not in self._hung:
                self._hung.add(busy.task)
                with suppress(OSError):  # the fork server is dead, which is heard next
                    self._tell(Kill(busy.slot, busy.task))
        return next_due

    @property
    def _slots(self) -> range:
        return range(self._setup.first_slot, self._setup.first_slot + self._setup.workers)


def _answered(words: Words, frame: Frame) -> Answered:
    """Return what a worker's message reports of its task."""
    from flwr.app import Error

    from fedwaggle.engine.flwr_private import make_message
    from fedwaggle.engine.local.replies import Reply, reply_of

    match words:
        case Content(task, metadata, records, state):
            return Answered(task, reply_of(metadata, records, frame), state=state)
        case Erred(task, None, code, reason, state):
            return Answered(task, error=(code, str(reason)), state=state)
        case Erred(task, metadata, code, reason, state):
            error = Error(code, reason)
            reply = Reply(make_message(metadata or (), error=error))
            return Answered(task, reply, state=state)
        case Expired(task):
            return Answered(task)
    raise AssertionError(f"a worker sends no {words!r}")


def _kill_session(leader_pid: int) -> None:
    """End what a dead fork server left behind: its workers, and whatever clients started.

    The system keeps the number of a session for it while a process is in it.
    """
    killed: set[int] = set()
    while found := set(_members(leader_pid)) - killed:  # another look: they may have forked
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed |= found


def _members(leader_pid: int) -> Iterator[int]:
    names = [entry.name for entry in Path("/proc").iterdir()]
    for pid in map(int, filter(str.isdigit, names)):
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == leader_pid:
                yield pid


def _import_error(text: str) -> str:
    return f"the ClientApp could not be started in a worker:\n{text.rstrip()}"
