"""One exchange with a cohort: push the messages, yield each reply when it arrives.

Flower's ``Grid.send_and_receive`` returns a list once all replies are in. Here each reply
comes with the seconds it took, and it can be used while the others are still on their way. It
is fetched when the caller asks for the next one: until then it waits where it is, so that the
caller holds one reply and not the cohort's.
An exchange ends when all have answered, when enough have and the grace is over, or at the
deadline, and nothing holds it longer.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import httpx
from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from fedwaggle.grids import ReplyTooLarge, WakingGrid

__all__ = ["TOO_LARGE", "UNREADABLE", "Arrival", "Patience", "exchange", "replies_to"]

logger = logging.getLogger("flwr.fedwaggle.strategy")

UNREADABLE = -1
"""Code of the error that stands for a reply which Flower cannot read; Flower's are above 0."""

TOO_LARGE = -2
"""Code of the error that stands for a reply which is not fetched, as it is too large."""

_DIED = {0, 8}  # flwr.common.constant.ErrorCode: UNKNOWN, which is a dead actor of Ray, and CRASHED

_MOST_PULLERS = 8
_FREE_MISSES = 3  # how often a puller asks in vain before it waits its turn
_PAUSE_SECONDS = 0.08  # between two turns: an empty pull costs the SuperLink and us 4 ms of CPU


@dataclass(frozen=True)
class Arrival:
    """A reply and how long it took.

    Attributes
    ----------
    node_id : int
        The node that was asked. An error reply may come from the SuperLink in its place, so
        this is where the message went, not where the reply states that it comes from.
    message : Message
        The reply; it may hold an error.
    seconds : float
        From the push of the cohort's messages to the pull of this reply, on the server's clock.
    """

    node_id: int
    message: Message
    seconds: float


@dataclass(frozen=True)
class Patience:
    """How long an exchange waits.

    Attributes
    ----------
    timeout : float
        Seconds after which the replies that are still out are given up.
    is_enough : Callable[[], bool]
        Whether the replies so far are enough: asked after each, once the caller has judged it.
    grace : float
        Seconds that the others still have once enough are in.
    """

    timeout: float
    is_enough: Callable[[], bool] = lambda: False
    grace: float = 0.0


class _Reply(NamedTuple):
    """A reply, the message that it answers, and when it was pulled."""

    message_id: str
    message: Message
    pulled: float


class _Source(Protocol):
    """Where replies come from."""

    def next_replies(self, waiting: set[str], seconds: float) -> Iterable[_Reply]:
        """Yield replies that came, or none at the latest after ``seconds``.

        One is fetched when the one before has been used.
        """

    def add(self, message_id: str, message: Message) -> None:
        """Look for the reply to another message, too."""


def exchange(grid: Grid, messages: Sequence[Message], patience: Patience) -> Iterator[Arrival]:
    """Push ``messages``, and return an iterator over the replies as they arrive.

    Parameters
    ----------
    grid : Grid
        What carries the messages.
    messages : Sequence[Message]
        One for each node of the cohort. They are on their way when this returns.
    patience : Patience
        How long to wait for the replies, from the push on.

    Returns
    -------
    Iterator[Arrival]
        At most one for each message, in the order of arrival. A message whose client process died
        is sent again, once, with the same content; the local engine does so itself.
    """
    began = time.monotonic()
    taken = set(grid.push_messages(messages))
    # Grids write the id that they gave a message into the message itself.
    sent = {message.metadata.message_id: message for message in messages}
    waiting = {key: message for key, message in sent.items() if key in taken}
    return _arrivals(grid, waiting, patience, began, resends=not isinstance(grid, WakingGrid))


def replies_to(grid: Grid, messages: Sequence[Message], patience: Patience) -> Iterator[Arrival]:
    """Return an iterator over the replies to messages that were pushed before.

    Parameters
    ----------
    grid : Grid
        What carries the messages.
    messages : Sequence[Message]
        Messages that it has pushed, several to one node perhaps.
    patience : Patience
        How long to wait, from now on.
    """
    sent = {message.metadata.message_id: message for message in messages}
    return _arrivals(grid, sent, patience, time.monotonic())


def _arrivals(
    grid: Grid,
    waiting: dict[str, Message],
    patience: Patience,
    began: float,
    *,
    resends: bool = False,
) -> Iterator[Arrival]:
    left = patience.timeout
    deadline = began + left
    again: set[str] = set()  # messages that were sent a second time
    with _replies_of(grid, waiting) as source:
        # The last look comes after the deadline: what is there while the caller is still busy
        # with the replies before it has come in time.
        while waiting and left > 0:
            left = deadline - time.monotonic()
            for reply in source.next_replies(set(waiting), max(left, 0.0)):
                sent = waiting.pop(reply.message_id, None)
                if sent is None:  # a reply to nothing that we asked is not ours to use
                    continue
                if resends and _has_died(reply.message) and reply.message_id not in again:
                    message_id = _send_again(grid, sent, waiting)
                    if message_id is not None:
                        again.add(message_id)
                        source.add(message_id, waiting[message_id])
                        continue
                yield Arrival(sent.metadata.dst_node_id, reply.message, reply.pulled - began)
                if patience.is_enough():
                    deadline = min(deadline, time.monotonic() + patience.grace)


def _has_died(message: Message) -> bool:
    """Whether a reply stands for a client whose process died, and not for what it answered."""
    return message.has_error() and message.error.code in _DIED


def _send_again(grid: Grid, sent: Message, waiting: dict[str, Message]) -> str | None:
    """Send a message's content to its node once more; return the id, or None if that failed."""
    metadata = sent.metadata
    message = Message(
        sent.content, metadata.dst_node_id, metadata.message_type, group_id=metadata.group_id
    )
    logger.info("node %d: its client process died; it is asked again", metadata.dst_node_id)
    taken = [key for key in grid.push_messages([message]) if key]
    if not taken:
        return None
    waiting[message.metadata.message_id] = message
    return message.metadata.message_id


def _replies_of(grid: Grid, sent: Mapping[str, Message]) -> AbstractContextManager[_Source]:
    if isinstance(grid, WakingGrid):
        return _Woken(grid, sent)
    return _Pulled(grid, sent)


class _Woken:
    """The replies of a grid that wakes us: nothing is polled, and what comes late is dropped."""

    def __init__(self, grid: WakingGrid, waiting: Mapping[str, Message]) -> None:
        self._grid = grid
        self._waiting = waiting  # what is answered leaves it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._grid.give_up(list(self._waiting))

    def add(self, message_id: str, message: Message) -> None:
        """Do nothing: what is waited for is asked for each time."""

    def next_replies(self, waiting: set[str], seconds: float) -> Iterable[_Reply]:
        answered = self._grid.wait_for_replies(waiting, seconds)
        arrived = time.monotonic()
        for message_id in answered:
            for reply in self._grid.pull_messages([message_id]):
                yield _Reply(reply.metadata.reply_to_message_id, reply, arrived)


class _Pulled:
    """The replies of a grid that must be asked, by threads that may be left behind.

    Flower's networked grid takes replies off the SuperLink, and fetches and decodes all that
    they hold, inside one ``pull_messages``. So a call asks for one message: bytes that cannot be
    decoded cost no other reply, an upload that stalls holds one thread, which is never waited
    for, and whose reply it is does not depend on what the reply states. A thread asks for no other
    while the reply that it found waits to be used: the others are on the SuperLink meanwhile.
    """

    def __init__(self, grid: Grid, sent: Mapping[str, Message]) -> None:
        self._grid = grid
        self._sent = dict(sent)
        self._open = deque(sent)
        self._found: queue.SimpleQueue[_Reply | BaseException] = queue.SimpleQueue()
        self._turn = threading.Lock()
        self._used = threading.Semaphore(0)
        self._over = threading.Event()

    def __enter__(self) -> Self:
        for _ in range(min(_MOST_PULLERS, len(self._open))):
            threading.Thread(target=self._pull, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._used.release(_MOST_PULLERS)

    def add(self, message_id: str, message: Message) -> None:
        # The thread whose reply is being used is there to ask for it.
        self._sent[message_id] = message
        self._open.append(message_id)

    def next_replies(self, waiting: set[str], seconds: float) -> Iterable[_Reply]:
        with suppress(queue.Empty):
            yield self._next(seconds)
            self._used.release()
        for _ in range(self._found.qsize()):
            yield self._next(0)
            self._used.release()

    def _next(self, seconds: float) -> _Reply:
        found = self._found.get(timeout=seconds)
        if isinstance(found, BaseException):
            raise found
        return found

    def _pull(self) -> None:
        misses = 0
        while not self._over.is_set():
            if misses >= _FREE_MISSES and self._wait_for_turn():
                return
            try:
                message_id = self._open.popleft()
            except IndexError:  # each of the others is in the hands of another thread
                return
            try:
                reply = self._ask(message_id)
            except BaseException as error:  # noqa: BLE001  # it is raised where the reply is awaited
                self._found.put(error)
                return
            if reply is None:
                misses += 1
                self._open.append(message_id)
            else:  # where one is, others may be: this thread goes on without a pause
                misses = 0
                self._found.put(_Reply(message_id, reply, time.monotonic()))
                del reply  # while this thread waits, only the caller holds it
                self._used.acquire()

    def _wait_for_turn(self) -> bool:
        """Wait for the pause that all threads share; return whether the exchange is over."""
        with self._turn:
            return self._over.wait(_PAUSE_SECONDS)

    def _ask(self, message_id: str) -> Message | None:
        """Return the reply to a message, if it is there."""
        try:
            return next(iter(self._grid.pull_messages([message_id])), None)
        except (OSError, httpx.HTTPError):  # the link's fault, not the client's
            raise
        except ReplyTooLarge as error:
            return _unreadable(self._sent[message_id], error, TOO_LARGE)
        except Exception as error:  # noqa: BLE001  # a stranger's bytes: there is no list of what
            return _unreadable(self._sent[message_id], error)


def _unreadable(sent: Message, error: Exception, code: int = UNREADABLE) -> Message:
    """Return what stands for a reply that cannot be read: an error that the server answers."""
    came = Message(RecordDict(), reply_to=sent)
    return Message(Error(code, f"{type(error).__name__}: {error}"), reply_to=came)
