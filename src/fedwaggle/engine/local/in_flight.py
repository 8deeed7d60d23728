"""The traffic of a run: which message is where, what each node's state is, which replies wait.

Bookkeeping only: it never waits, and it is not for several threads at once. The grid does both.

Each node's state lives here, as bytes, and travels with each message to whichever worker takes
it; so a node costs nothing until it has some. A node gets one message at a time: the next one
leaves when the state after the one before is known.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any, Protocol

from flwr.app import Error, Message

from fedwaggle.engine.flwr_private import (
    MESSAGE_UNAVAILABLE,
    NODE_UNAVAILABLE,
    crash_error,
    make_message,
    metadata_values,
    set_message_id,
    unavailable_reply,
)
from fedwaggle.engine.local.pool import Answered, Lost, Outcome, Pool, Sender
from fedwaggle.engine.local.replies import Arrived, Reply
from fedwaggle.grids import RecordedRun

__all__ = ["Observer", "Traffic"]

_SPARE_ENDS = 1_000  # times to live of answered messages that may lie about

_EXPIRED = (
    "Error: Message Unavailable - The requested message could not be found. It may have expired "
    "due to its TTL, it was answered before, or it never existed."
)
_NO_NODE = "Error: Node Unavailable - There is no node with this ID."


class Observer(Protocol):
    """Sees the traffic, to show it."""

    def run_recorded(self, run: RecordedRun) -> None:
        """See the run whose record the strategy writes."""

    def pushed(self, message: Message) -> None:
        """See a message that is on its way to a client."""

    def replied(self, message: Message, reply: Message) -> None:
        """See a client's answer; its arrays may not be there yet."""

    def report(self, line: str) -> None:
        """Take a line on what happened to a message."""


@dataclass(eq=False)
class _Sent:
    """A message that is on its way.

    Attributes
    ----------
    message : Message
        As it was when it was sent; the sender may change the object that it holds.
    packed : Any
        The same in the pool's own form; kept until it is answered.
    task : int | None
        Its number in the pool, once it is there.
    wanted : bool
        Whether anybody can still pull the reply. One that was given up is not wanted.
    repeated : bool
        Whether it was sent a second time, because its first worker was killed.
    """

    message: Message
    packed: Any
    task: int | None = None
    wanted: bool = True
    repeated: bool = False

    @property
    def message_id(self) -> str:
        return self.message.metadata.message_id

    @property
    def node_id(self) -> int:
        return self.message.metadata.dst_node_id


class Traffic:
    """What is on its way, and what has arrived.

    Parameters
    ----------
    pool : Pool
        The workers.
    run_id : int
        Flower's number of the run.
    nodes : range
        The ids of the nodes, in the order of their partitions.
    observer : Observer
        Sees what passes.

    Attributes
    ----------
    open : dict[str, _Sent]
        Messages that are not answered yet and have time left, by id.
    ready : Arrived
        Replies that were not pulled yet, by the id of the message.
    states : dict[int, bytes]
        The state of each node that has one.
    messages, errors : int
        Messages so far, and how many were answered by an error.
    """

    def __init__(self, pool: Pool, run_id: int, nodes: range, observer: Observer) -> None:
        self._pool, self._run_id, self._nodes, self._observer = pool, run_id, nodes, observer
        self._ids = count(1)
        self._tasks: dict[int, _Sent] = {}  # what the pool has
        self._behind: dict[int, deque[_Sent]] = {}  # node at work to what waits behind it
        self._leaving: OrderedDict[str, _Sent] = OrderedDict()  # until the pool has room for it
        self._ends: list[tuple[float, str]] = []  # a heap: when each message's time is up, its id
        self.open: dict[str, _Sent] = {}
        self.ready = Arrived()
        self.states: dict[int, bytes] = {}
        self.messages = 0
        self.errors = 0

    def push(self, message: Message, sender: Sender) -> str:
        """Send a message, and return the id that it got.

        Raises
        ------
        ValueError
            If it is a reply, has no time to live, or was sent before.
        """
        metadata = message.metadata
        if metadata.reply_to_message_id or not metadata.ttl > 0:
            raise ValueError(f"expected a new message with a ttl above 0, got {metadata}")
        if metadata.delivered_at:
            raise ValueError(
                f"expected a new message, got one that was sent at {metadata.delivered_at}; to "
                f"send its content again, build another Message: {metadata}"
            )
        message_id = str(next(self._ids))
        set_message_id(message, message_id)
        self.messages += 1
        if metadata.dst_node_id not in self._nodes:
            unavailable = self._unavailable(message_id, NODE_UNAVAILABLE, _NO_NODE)
            self.ready.add(message_id, Reply(unavailable))
            self.errors += 1
            return message_id
        own = make_message(metadata_values(message), content=message.content)
        sent = _Sent(own, sender.pack(message))
        metadata.delivered_at = datetime.now(UTC).isoformat()  # where Flower notes it, too
        self.open[message_id] = sent
        heapq.heappush(self._ends, (metadata.created_at + metadata.ttl, message_id))
        self._observer.pushed(message)
        if sent.node_id in self._behind:
            self._behind[sent.node_id].append(sent)
        else:
            self._behind[sent.node_id] = deque()
            self._dispatch(sent)
        return message_id

    def pull(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to these messages that are there, in the order of the messages.

        Not in the order of arrival: a sum over the replies has the same bits in every run.
        """
        wanted = set(message_ids)
        unknown = wanted.difference(self.open, self.ready)
        replies = [self.ready.take(message_id) for message_id in self.answered(wanted)]
        return replies + [self._unavailable(message_id) for message_id in sorted(unknown)]

    def answered(self, message_ids: set[str]) -> list[str]:
        """Return which of these messages have a reply to pull, in the order of the messages."""
        return sorted(message_ids.intersection(self.ready), key=int)  # ids count up

    def give_up(self, message_ids: Iterable[str]) -> None:
        """Take messages back; if a client has begun one, only its reply is not wanted."""
        given_up = set(message_ids)
        self.ready.drop(self.answered(given_up))
        # The last go first: until they are gone, no room that one leaves is filled by the next.
        for message_id in sorted(given_up.intersection(self.open), key=int, reverse=True):
            self._take_back(message_id)

    def _take_back(self, message_id: str) -> None:
        sent = self.open[message_id]
        sent.wanted = False
        if sent in self._behind[sent.node_id]:
            self._behind[sent.node_id].remove(sent)
        elif sent.task is None:
            del self._leaving[message_id]
            self._free_node(sent.node_id)
        elif self._pool.withdraw(sent.task):
            del self._tasks[sent.task]
            self._free_node(sent.node_id)
        else:
            return
        del self.open[message_id]

    def absorb(self, outcomes: Iterable[Outcome]) -> None:
        """Take in what became of tasks, and send what had no room before."""
        for outcome in outcomes:
            sent = self._tasks.pop(outcome.task, None)
            if sent is None:  # it was answered, and then its worker died
                continue
            if isinstance(outcome, Lost) and self._may_repeat(sent, outcome):
                self._repeat(sent, outcome)
            else:
                self._answer(sent, outcome)
        self._fill_pool()

    def expire(self, now: float) -> None:
        """Answer each message whose time is up, for the client that did not.

        What a client still replies to it afterwards changes the node's state, and nothing else.
        A message that no client has begun is thrown away by the worker that comes to it.

        Parameters
        ----------
        now : float
            On the clock that a message's ``created_at`` is of (s).
        """
        while self._ends and (self._ends[0][0] <= now or self._ends[0][1] not in self.open):
            _, message_id = heapq.heappop(self._ends)
            if message_id in self.open:
                self._settle(self.open[message_id], Reply(self._unavailable(message_id)))
        # The ends of answered messages wait behind that of one which a client never answers.
        if len(self._ends) > _SPARE_ENDS + 2 * len(self.open):
            self._ends = [end for end in self._ends if end[1] in self.open]
            heapq.heapify(self._ends)

    def next_end(self) -> float:
        """Return when the next message's time is up, or infinity."""
        return self._ends[0][0] if self._ends else math.inf

    def _dispatch(self, sent: _Sent) -> None:
        """Let a message leave, behind those that are to leave already."""
        self._leaving[sent.message_id] = sent
        self._fill_pool()

    def _fill_pool(self) -> None:
        """Append tasks, in order, while the pool has room for them."""
        while self._leaving:
            sent = next(iter(self._leaving.values()))
            # One message at a time: the node's state is now what the client is to have.
            state = self.states.get(sent.node_id, b"")
            sent.task = self._pool.submit(sent.packed, self._nodes.index(sent.node_id), state)
            if sent.task is None:
                return
            self._tasks[sent.task] = sent
            del self._leaving[sent.message_id]

    def _may_repeat(self, sent: _Sent, lost: Lost) -> bool:
        """Whether a message is to be sent again; once, as the client may be what kills workers."""
        is_awaited = sent.wanted and sent.message_id in self.open
        return lost.by_signal and is_awaited and not sent.repeated

    def _repeat(self, sent: _Sent, lost: Lost) -> None:
        """Send a message again, with the state that its node still has, before all others.

        It is the same message under the same id, so its client draws the same random numbers.
        """
        client = self._nodes.index(sent.node_id)
        self._observer.report(f"the message to client {client} is sent again: {lost.reason}")
        sent.repeated, sent.task = True, None
        self._leaving[sent.message_id] = sent
        self._leaving.move_to_end(sent.message_id, last=False)

    def _answer(self, sent: _Sent, outcome: Outcome) -> None:
        if isinstance(outcome, Lost):
            again = ", for the second time" if outcome.by_signal and sent.repeated else ""
            error = Error(*crash_error(outcome.reason + again))
            reply = Reply(Message(error, reply_to=sent.message))
        else:
            reply = self._reply_in(sent, outcome)
        if sent.message_id in self.open:
            self._settle(sent, reply)
        else:  # its time was up before
            reply.close()
        self._free_node(sent.node_id)

    def _settle(self, sent: _Sent, reply: Reply) -> None:
        """Take this for the answer to a message."""
        del self.open[sent.message_id]
        set_message_id(reply.message, f"{sent.message_id}-reply")
        self.errors += reply.message.has_error()
        self._observer.replied(sent.message, reply.message)
        if sent.wanted:
            self.ready.add(sent.message_id, reply)
        else:
            reply.close()

    def _reply_in(self, sent: _Sent, answered: Answered) -> Reply:
        """Return the reply that a client gave, and keep its node's new state if there is one."""
        if answered.state:
            self.states[sent.node_id] = answered.state
        elif answered.state is not None:
            self.states.pop(sent.node_id, None)
        if answered.reply is not None:
            return answered.reply
        if answered.error is None:
            return Reply(self._unavailable(sent.message_id))
        return Reply(Message(Error(*answered.error), reply_to=sent.message))

    def _free_node(self, node_id: int) -> None:
        """Let the next message go to a node that has none."""
        waiting = self._behind[node_id]
        if waiting:
            self._dispatch(waiting.popleft())
        else:
            del self._behind[node_id]

    def _unavailable(
        self, message_id: str, code: int = MESSAGE_UNAVAILABLE, reason: str = _EXPIRED
    ) -> Message:
        return unavailable_reply(self._run_id, message_id, code, reason)
