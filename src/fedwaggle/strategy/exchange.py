"""One exchange with a cohort: push the messages, yield each reply when it arrives.

Flower's ``Grid.send_and_receive`` returns a list once all replies are in. Here each reply
comes with the seconds it took, and it can be used while the others are still on their way.
An exchange ends when all have answered, when enough have and the grace is over, or at the
deadline, and nothing holds it longer.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, Self, cast

from flwr.app import Message
from flwr.serverapp import Grid

__all__ = ["Arrival", "Patience", "exchange"]

_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 0.5
_MOST_PULLERS = 8


@dataclass(frozen=True)
class Arrival:
    """A reply and how long it took.

    Attributes
    ----------
    node_id : int
        The node that was asked. An error reply may come from the SuperLink in its place, so
        this is where the message went, not where the reply says that it comes from.
    message : Message
        The reply; it may hold an error.
    seconds : float
        From the push of the cohort's messages to this reply, on the server's clock.
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
    min_replies : int
        How many replies without an error are enough; 0 waits for all.
    grace : float
        Seconds that the others still have once enough are in.
    """

    timeout: float
    min_replies: int = 0
    grace: float = 0.0


class _Source(Protocol):
    """Where replies come from."""

    def next_replies(self, waiting: set[str], seconds: float) -> Sequence[Message]:
        """Return replies that came, or none at the latest after ``seconds``."""


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
        At most one for each message, in the order of arrival.
    """
    began = time.monotonic()
    taken = set(grid.push_messages(messages))
    # Grids write the id that they gave a message into the message itself.
    sent = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
    waiting = {key: node for key, node in sent.items() if key in taken}
    return _arrivals(grid, waiting, patience, began)


def _arrivals(
    grid: Grid, waiting: dict[str, int], patience: Patience, began: float
) -> Iterator[Arrival]:
    deadline = began + patience.timeout
    good = 0
    with _replies_of(grid, set(waiting)) as source:
        while waiting and (left := deadline - time.monotonic()) > 0:
            for reply in source.next_replies(set(waiting), left):
                node_id = waiting.pop(reply.metadata.reply_to_message_id, None)
                if node_id is None:  # a reply to nothing that we asked is not ours to use
                    continue
                good += not reply.has_error()
                if patience.min_replies and good >= patience.min_replies:
                    deadline = min(deadline, time.monotonic() + patience.grace)
                yield Arrival(node_id, reply, time.monotonic() - began)


def _replies_of(grid: Grid, message_ids: set[str]) -> AbstractContextManager[_Source]:
    if hasattr(grid, "wait_for_reply"):
        return nullcontext(_Woken(cast("_WakingGrid", grid)))
    return _Pulled(grid, sorted(message_ids))


class _WakingGrid(Protocol):
    """A grid that says when there is something to pull."""

    def wait_for_reply(self, timeout: float) -> bool: ...
    def pull_messages(self, message_ids: set[str]) -> Sequence[Message]: ...


class _Woken:
    """The replies of a grid that wakes us: nothing is polled."""

    def __init__(self, grid: _WakingGrid) -> None:
        self._grid = grid

    def next_replies(self, waiting: set[str], seconds: float) -> Sequence[Message]:
        self._grid.wait_for_reply(seconds)
        return self._grid.pull_messages(waiting)


class _Pulled:
    """The replies of a grid that must be asked, by threads that may be left behind.

    Flower's networked grid fetches a reply's arrays inside ``pull_messages``. A client that has
    sent its header and then stalls holds that call for minutes. So each thread asks for its own
    share of the messages, and none of them is ever waited for.
    """

    def __init__(self, grid: Grid, message_ids: Sequence[str]) -> None:
        self._grid = grid
        pullers = min(_MOST_PULLERS, len(message_ids))
        self._shares = [set(message_ids[k::pullers]) for k in range(pullers)]
        self._found: queue.SimpleQueue[Sequence[Message] | Exception] = queue.SimpleQueue()
        self._over = threading.Event()

    def __enter__(self) -> Self:
        for share in self._shares:
            threading.Thread(target=self._pull, args=[share], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def next_replies(self, waiting: set[str], seconds: float) -> Sequence[Message]:
        try:
            found = self._found.get(timeout=seconds)
        except queue.Empty:
            return []
        if isinstance(found, Exception):
            raise found
        return found

    def _pull(self, share: set[str]) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while share and not self._over.is_set():
            try:
                replies = list(self._grid.pull_messages(share))
            except Exception as error:  # noqa: BLE001  # it is raised where the reply is awaited
                self._found.put(error)
                return
            share -= {reply.metadata.reply_to_message_id for reply in replies}
            if replies:
                self._found.put(replies)
                pause = _FIRST_PAUSE_SECONDS
            elif self._over.wait(pause):
                return
            else:
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
