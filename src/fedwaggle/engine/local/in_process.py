"""A pool without processes: each client runs in the thread that waits for it.

It is for debugging and for tests: ``breakpoint()`` works in a client, a traceback leads from the
server to it, and one client runs at a time. Clients share the process with the server, so a crash
or an endless loop of one is the run's, and what one leaves in a module the next one finds.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import count
from typing import Any, NamedTuple

from flwr.app import ArrayRecord, Message
from flwr.clientapp import ClientApp

from fedwaggle.engine.flwr_private import make_message, metadata_values
from fedwaggle.engine.local.client import Answer, Client, answer_or_crash
from fedwaggle.engine.local.messages import (
    describe_arrays,
    pack_content,
    rebuild_arrays,
    unpack_content,
)
from fedwaggle.engine.local.pool import Answered, Outcome
from fedwaggle.engine.local.replies import Reply
from fedwaggle.engine.local.seeding import RandomNumbers

__all__ = ["InProcessPool"]


class _Sender:
    def pack(self, message: Message) -> Message:
        """Return the message with records of its own."""
        return _detached(message)


class _Task(NamedTuple):
    message: Message
    partition: int
    state: bytes


class InProcessPool:
    """Runs clients in this process, one after the other.

    Parameters
    ----------
    import_app : Callable[[], ClientApp]
        Imports the app; it is called by the first ``collect``.
    client_of : Callable[[ClientApp], Client]
        Makes what answers messages of it.
    seed : int | None
        What the random numbers of a message derive from, besides its id; None leaves the
        generators alone.
    """

    def __init__(
        self,
        import_app: Callable[[], ClientApp],
        client_of: Callable[[ClientApp], Client],
        seed: int | None,
    ) -> None:
        self._import_app, self._client_of = import_app, client_of
        self._random = None if seed is None else RandomNumbers(seed)
        self._side = _ClientSide()
        self._client: Client | None = None
        self._numbers = count()
        self._waiting: OrderedDict[int, _Task] = OrderedDict()

    @property
    def is_ready(self) -> bool:
        """Whether the app is imported."""
        return self._client is not None

    def sender(self) -> _Sender:
        """Return a sender for the messages of one push."""
        return _Sender()

    def submit(self, packed: Message, partition: int, state: bytes) -> int:
        """Add a task, and return its number."""
        number = next(self._numbers)
        self._waiting[number] = _Task(packed, partition, state)
        return number

    def withdraw(self, task: int) -> bool:
        """Take a task back, and return whether no client had begun it."""
        return self._waiting.pop(task, None) is not None

    def collect(self, timeout: float | None) -> list[Outcome]:
        """Let the client of the next task answer it; without one, wait."""
        if self._client is None:
            with self._side.entered():  # what the app seeds at import, its clients begin with
                self._client = self._client_of(self._import_app())
            return []
        if not self._waiting:
            time.sleep(0.0 if timeout is None else timeout)
            return []
        number, task = self._waiting.popitem(last=False)
        return [self._outcome(number, task)]

    def close(self, *, in_order: bool = False) -> None:
        """Forget what waits."""
        self._waiting.clear()

    def _outcome(self, number: int, task: _Task) -> Answered:
        message = task.message
        if message.metadata.created_at + message.metadata.ttl <= time.time():
            return Answered(number)
        answer = self._answer(task)
        reply = None if answer.reply is None else Reply(_detached(answer.reply))
        return Answered(number, reply, answer.error, answer.state)

    def _answer(self, task: _Task) -> Answer:
        assert self._client is not None  # noqa: S101  # collect has made it
        with self._side.entered():
            return answer_or_crash(
                self._client, task.message, task.partition, task.state, self._random
            )


class _ClientSide:
    """What clients have apart from the server: random numbers, and a working folder to leave."""

    def __init__(self) -> None:
        self._numbers: tuple[Any, ...] | None = None  # of the clients, from message to message

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let a client draw its own random numbers, and undo a change of the folder."""
        folder, of_server = os.open(".", os.O_PATH | os.O_CLOEXEC), _numbers()
        if self._numbers is None:
            _draw_afresh()
        else:
            _set_numbers(self._numbers)
        try:
            yield
        finally:
            os.fchdir(folder)
            os.close(folder)
            self._numbers = _numbers()
            _set_numbers(of_server)


def _numbers() -> tuple[Any, ...]:
    """Return the state of each generator of random numbers; None for what is not imported."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    return (
        random.getstate(),
        numpy.random.get_state() if numpy else None,
        torch.get_rng_state() if torch else None,
    )


def _set_numbers(numbers: tuple[Any, ...]) -> None:
    of_python, of_numpy, of_torch = numbers
    random.setstate(of_python)
    if of_numpy is not None:
        sys.modules["numpy"].random.set_state(of_numpy)
    if of_torch is not None:
        sys.modules["torch"].set_rng_state(of_torch)


def _draw_afresh() -> None:
    """Seed all generators from the system, as in a process that has just started."""
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if torch := sys.modules.get("torch"):
        torch.default_generator.seed()


def _detached(message: Message) -> Message:
    """Return a message with records of its own; only bytes are shared, which nothing changes."""
    metadata = metadata_values(message)
    if message.has_error():
        return make_message(metadata, error=message.error)
    records = pack_content(message.content, _fresh)
    own = [(name, kind, v if kind == "arrays" else deepcopy(v)) for name, kind, v in records]
    return make_message(metadata, content=unpack_content(own, lambda arrays: arrays))


def _fresh(record: ArrayRecord) -> ArrayRecord:
    facts, buffers = describe_arrays(record)
    return rebuild_arrays(facts, [bytes(data) for data in buffers])
