"""A pool on any executor of ``concurrent.futures``: the standard library's processes, or others.

It works wherever Python starts processes. It cannot do what an executor cannot: end one client that
hangs, give each message a fresh process, or share out GPUs. When a process dies, the executor is
made anew, and the tasks of all its processes count as lost: an executor does not say whose died.

Nothing that takes long to import is imported here, so that a process can set its environment first.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from multiprocessing import get_context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from fedwaggle.engine.local.pool import MOST_OUTCOMES, Answered, Lost
from fedwaggle.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flwr.app import Message

    from fedwaggle.engine.local.client import Client
    from fedwaggle.engine.local.pool import Outcome
    from fedwaggle.engine.local.seeding import RandomNumbers

__all__ = ["ExecutorPool", "Work", "process_executor"]

_READY = -1  # the number of the task that imports the app


@dataclass(frozen=True)
class Work:
    """What a process has to know to answer the messages of a run; plain values.

    Attributes
    ----------
    sys_path : tuple[str, ...]
        Where modules are found; empty for a machine that has its own.
    folder : str
        Where the app is imported from; empty for the working folder of the process.
    clientapp : str
        Where the ClientApp is: ``module:attribute``.
    run_id, num_nodes, node_config, run_config
        See :class:`fedwaggle.engine.local.client.Client`.
    seed : int | None
        What the random numbers of a message derive from, besides its id; None leaves the
        generators alone.
    """

    sys_path: tuple[str, ...]
    folder: str
    clientapp: str
    run_id: int
    num_nodes: int
    node_config: Mapping[str, bool | int | float | str]
    run_config: Mapping[str, bool | int | float | str]
    seed: int | None


class _Result(NamedTuple):
    """What comes back from a process: a pickled reply or an error, and the node's new state."""

    reply: bytes | None = None
    error: tuple[int, str] | None = None
    state: bytes | None = None


def process_executor(workers: int, environment: Mapping[str, str]) -> Executor:
    """Return processes that are started anew, each with an environment of its own.

    Parameters
    ----------
    workers : int
        How many.
    environment : Mapping[str, str]
        Variables that hold from the start: how many threads a client computes with, say.
    """
    return ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),
        initializer=_set_environment,
        initargs=(dict(environment),),
    )


class _Sender:
    def pack(self, message: Message) -> bytes:
        """Return the message as bytes."""
        return pickle.dumps(message)


class ExecutorPool:
    """Runs clients on an executor.

    Parameters
    ----------
    make_executor : Callable[[], Executor]
        Makes the executor, and another one when a process of it has died.
    work : Work
        What its processes have to know.
    """

    def __init__(self, make_executor: Callable[[], Executor], work: Work) -> None:
        self._make_executor = make_executor
        self._work = pickle.dumps(work)
        self._numbers = count()
        self._tasks: dict[int, Future[Any]] = {}
        self._done: SimpleQueue[int] = SimpleQueue()
        self._executor = make_executor()
        self.is_ready = False
        self._watch(_READY, self._executor.submit(_import_app, self._work))

    def sender(self) -> _Sender:
        """Return a sender for the messages of one push."""
        return _Sender()

    def submit(self, packed: bytes, partition: int, state: bytes) -> int:
        """Add a task, and return its number."""
        number = next(self._numbers)
        task = partial(_answer, self._work, packed, partition, state)
        try:
            future = self._executor.submit(task)
        except BrokenExecutor:
            self._begin_anew()
            future = self._executor.submit(task)
        self._watch(number, future)
        return number

    def withdraw(self, task: int) -> bool:
        """Take a task back, and return whether no client had begun it."""
        future = self._tasks.get(task)
        if future is None or not future.cancel():
            return False
        del self._tasks[task]
        return True

    def collect(self, timeout: float | None) -> list[Outcome]:
        """Wait until something happened, or for so long, and return what became of tasks.

        Raises
        ------
        EngineError
            If the app cannot be imported.
        """
        outcomes: list[Outcome] = []
        with suppress(Empty):
            self._take(self._done.get(timeout=timeout), outcomes)
            while len(outcomes) < MOST_OUTCOMES:
                self._take(self._done.get_nowait(), outcomes)
        return outcomes

    def close(self, *, in_order: bool = False) -> None:
        """End all processes; one that hangs is not waited for unless ``in_order``."""
        self._executor.shutdown(wait=in_order, cancel_futures=True)

    def _watch(self, number: int, future: Future[Any]) -> None:
        self._tasks[number] = future
        future.add_done_callback(lambda _: self._done.put(number))

    def _take(self, number: int, outcomes: list[Outcome]) -> None:
        future = self._tasks.pop(number, None)
        if future is None:  # it was withdrawn
            return
        if number == _READY:
            self._check_import(future)
            return
        try:
            outcomes.append(_answered(number, future.result()))
        except CancelledError:
            outcomes.append(Lost(number, "its executor was closed", by_signal=True))
        except BrokenExecutor:
            self._begin_anew()
            outcomes.append(Lost(number, "a process of the pool died", by_signal=True))

    def _check_import(self, future: Future[Any]) -> None:
        try:
            future.result()
        except Exception as error:
            raise EngineError(f"the ClientApp cannot be imported: {error}") from error
        self.is_ready = True

    def _begin_anew(self) -> None:
        """Replace an executor of which a process died; once, however many tasks it had."""
        try:
            self._executor.submit(int)
        except BrokenExecutor:
            self._executor.shutdown(wait=False)
            self._executor = self._make_executor()


def _answered(number: int, result: _Result) -> Answered:
    from fedwaggle.engine.local.replies import Reply

    reply = None if result.reply is None else Reply(pickle.loads(result.reply))  # noqa: S301  # ours
    return Answered(number, reply, result.error, result.state)


# -- In a process of the pool


def _set_environment(environment: Mapping[str, str]) -> None:
    os.environ.update(environment)


def _import_app(work: bytes) -> None:
    _client(work)


@lru_cache(maxsize=1)
def _client(work: bytes) -> tuple[Client, RandomNumbers | None]:
    """Import the app, once in a process; return what answers messages, and seeds them."""
    from fedwaggle.engine.flwr_private import load_client_app
    from fedwaggle.engine.local.client import Client
    from fedwaggle.engine.local.seeding import RandomNumbers

    known: Work = pickle.loads(work)  # noqa: S301  # the engine's own
    if known.sys_path:
        sys.path[:] = known.sys_path
    app = load_client_app(known.clientapp, known.folder or os.getcwd())  # noqa: PTH109
    client = Client(app, known.run_id, known.num_nodes, known.node_config, known.run_config, _show)
    return client, None if known.seed is None else RandomNumbers(known.seed)


def _answer(work: bytes, packed: bytes, partition: int, state: bytes) -> _Result:
    """Let a client answer a message."""
    from fedwaggle.engine.local.client import answer_or_crash

    client, random = _client(work)
    message: Message = pickle.loads(packed)  # noqa: S301  # the engine's own
    if message.metadata.created_at + message.metadata.ttl <= time.time():
        return _Result()
    with _folder_kept():
        answer = answer_or_crash(client, message, partition, state, random)
    reply = None if answer.reply is None else pickle.dumps(answer.reply)
    return _Result(reply, answer.error, answer.state)


@contextmanager
def _folder_kept() -> Iterator[None]:
    """Undo a change of the working folder: the next client begins where this one did."""
    folder = os.getcwd()  # noqa: PTH109
    try:
        yield
    finally:
        os.chdir(folder)


def _show(partition: int, trace: str) -> None:
    """Print what an app raised."""
    from fedwaggle.engine.screen.tracebacks import unpacked

    for line in unpacked(f"[client {partition}] {trace}") or ():
        print(line, file=sys.stderr, flush=True)
