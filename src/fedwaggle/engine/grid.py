"""The grid: what a ServerApp sees of the local engine.

It speaks Flower's ``Grid``: messages are pushed, replies are pulled, and a node that does not
answer is not in the answers. Each node's state lives here, as bytes, and travels with each
message to whichever worker takes it; so a node costs nothing until it has some. A node gets one
message at a time: the next waits until the state after the one before is known.

Any thread may call it. Of the threads that wait, one listens for all.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

from flwr.app import ArrayRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from fedwaggle.engine.flower_api import (
    CLIENT_APP_CRASHED,
    MESSAGE_UNAVAILABLE,
    NODE_UNAVAILABLE,
    FlowerRun,
    NodeInfo,
    make_message,
    set_message_id,
    unavailable_reply,
)
from fedwaggle.engine.frames import dump
from fedwaggle.engine.parcels import Address, Parcel
from fedwaggle.engine.pool import Event, Lost, Pool
from fedwaggle.engine.wire import (
    ArrayFacts,
    PackedRecord,
    array_key,
    describe_arrays,
    pack_content,
    pack_metadata,
    rebuild_arrays,
    unpack_content,
)

__all__ = ["FIRST_NODE_ID", "LocalGrid", "Observer"]

FIRST_NODE_ID = 1_000  # of partition 0; the others follow
_MOST_PLACED = 4  # array records that are remembered: train and evaluate send the same

_EXPIRED = (
    "Error: Message Unavailable - The requested message could not be found. It may have expired "
    "due to its TTL, it was answered before, or it never existed."
)
_NO_NODE = "Error: Node Unavailable - There is no node with this ID."


class Observer(Protocol):
    """Sees the traffic, to show it."""

    def pushed(self, message: Message) -> None:
        """See a message that is on its way to a client."""

    def replied(self, message: Message, reply: Message) -> None:
        """See a client's answer."""


@dataclass(eq=False)
class _Sent:
    """A message that is on its way.

    Attributes
    ----------
    message : Message
        As the sender holds it.
    records : list[PackedRecord]
        Its content.
    parcels : list[Parcel]
        What holds its payload; kept until it is answered. The last one takes its letter.
    task : int | None
        Its number in the pool, once it is there.
    wanted : bool
        Whether anybody can still pull the reply.
    """

    message: Message
    records: list[PackedRecord]
    parcels: list[Parcel]
    task: int | None = None
    wanted: bool = True

    @property
    def message_id(self) -> str:
        return self.message.metadata.message_id

    @property
    def node_id(self) -> int:
        return self.message.metadata.dst_node_id


class LocalGrid(Grid):
    """A grid of nodes that live in the worker processes of this machine.

    Parameters
    ----------
    pool : Pool
        The workers.
    run_id : int
        Flower's number of the run.
    num_nodes : int
        How many nodes there are.
    observer : Observer
        Sees the traffic.
    """

    engine_name = "local"

    def __init__(self, pool: Pool, *, run_id: int, num_nodes: int, observer: Observer) -> None:
        self._pool = pool
        self._run = FlowerRun.create_empty(run_id)
        self._nodes = range(FIRST_NODE_ID, FIRST_NODE_ID + num_nodes)
        self._observer = observer
        self._ids = count(1)
        self._states: dict[int, bytes] = {}  # node id to state; most nodes never have one
        self._open: dict[str, _Sent] = {}  # message id to what is not answered yet
        self._tasks: dict[int, _Sent] = {}  # what the pool has
        self._behind: dict[int, deque[_Sent]] = {}  # node at work to what waits behind it
        self._overflow: deque[_Sent] = deque()  # what the pool has no room for
        self._ready: dict[str, Message] = {}  # message id to reply
        self._placed: OrderedDict[Any, tuple[Address, Parcel, Any]] = OrderedDict()
        self._changed = threading.Condition(threading.Lock())
        self._is_listened_to = False
        self.messages = 0
        self.errors = 0

    # ---- Flower's interface

    def set_run(self, run: FlowerRun) -> None:
        """Take over a description of the run."""
        self._run = run

    @property
    def run(self) -> FlowerRun:
        """The run's description."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a new message, as Flower's older apps make them."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return all nodes, in the order of their partitions, once they are there.

        They are when a worker has imported the ClientApp: what a server times after this is
        the clients' work, not their start.
        """
        self._wait(lambda: self._pool.is_ready, None)
        return list(self._nodes)

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Yield all nodes; each has its partition id for a name."""
        return (NodeInfo(node_id=n, name=str(n - FIRST_NODE_ID)) for n in self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages, in this order, and return their ids."""
        self._wait(lambda: self._pool.is_ready, None)
        parcel = Parcel()
        ids = []
        for message in messages:
            with self._changed:
                set_message_id(message, str(next(self._ids)))
                self._push(message, parcel)
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages that are there, in the order of the messages.

        Not in the order of arrival: a sum over the replies has the same bits in every run.
        """
        wanted = set(message_ids)
        self._wait(lambda: False, 0.0)
        with self._changed:
            unknown = wanted.difference(self._open, self._ready)
            arrived = sorted(wanted.intersection(self._ready), key=int)  # ids count up
            replies = [self._ready.pop(message_id) for message_id in arrived]
        return replies + [self._unavailable(message_id) for message_id in sorted(unknown)]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages, wait, and return the replies that came, in the order of the messages.

        What no client has begun when the time is up is taken back: nobody could pull its reply.
        """
        ids = set(self.push_messages(messages))
        self._wait(lambda: self._open.keys().isdisjoint(ids), timeout)
        with self._changed:
            late = [sent for message_id in ids if (sent := self._open.get(message_id))]
            for sent in late:
                self._give_up(sent)
        return self.pull_messages(ids.difference(sent.message_id for sent in late))

    # ---- what Waggle's strategies use where it is there

    def wait_for_reply(self, timeout: float | None = None) -> bool:
        """Wait until a reply is there that was not pulled yet, and return whether one is."""
        return self._wait(lambda: bool(self._ready), timeout)

    def client_states(self) -> dict[str, bytes]:
        """Return the ``Context.state`` of the clients that have one, by name.

        The bytes are Flower's own form of a ``RecordDict``.
        """
        with self._changed:
            return {str(node - FIRST_NODE_ID): state for node, state in self._states.items()}

    def restore_client_states(self, states: Mapping[str, bytes]) -> None:
        """Give clients the states that :meth:`client_states` returned; the others have none."""
        with self._changed:
            self._states = {int(name) + FIRST_NODE_ID: state for name, state in states.items()}

    # ---- on the way out

    def _push(self, message: Message, parcel: Parcel) -> None:
        metadata = message.metadata
        if metadata.reply_to_message_id or not metadata.ttl > 0:
            raise ValueError(f"expected a new message with a ttl above 0, got {message}")
        self.messages += 1
        if metadata.dst_node_id not in self._nodes:
            self._ready[metadata.message_id] = self._unavailable(
                metadata.message_id, NODE_UNAVAILABLE, _NO_NODE
            )
            self.errors += 1
            return
        parcels: list[Parcel] = []

        def place(record: ArrayRecord) -> tuple[int, ...]:
            address, home = self._place_arrays(record, parcel)
            parcels.append(home)
            return tuple(address)

        records = pack_content(message.content, place)
        sent = _Sent(message, records, [*parcels, parcel])
        self._open[metadata.message_id] = sent
        self._observer.pushed(message)
        if metadata.dst_node_id in self._behind:
            self._behind[metadata.dst_node_id].append(sent)
        else:
            self._behind[metadata.dst_node_id] = deque()
            self._dispatch(sent)

    def _place_arrays(self, record: ArrayRecord, parcel: Parcel) -> tuple[Address, Parcel]:
        """Put arrays into the parcel, unless the same were put into one lately."""
        key = array_key(record)
        if key in self._placed:
            self._placed.move_to_end(key)
        else:
            facts, buffers = describe_arrays(record)
            address = parcel.put([dump(facts), *buffers])
            self._placed[key] = (address, parcel, buffers)  # with its bytes alive, the key is true
            if len(self._placed) > _MOST_PLACED:
                self._placed.popitem(last=False)
        address, home, _ = self._placed[key]
        return address, home

    def _dispatch(self, sent: _Sent) -> None:
        """Write a message's letter, with the node's state as it is now, and append its task."""
        state = self._states.get(sent.node_id, b"")
        partition = sent.node_id - FIRST_NODE_ID
        letter = dump((pack_metadata(sent.message), sent.records, partition, state))
        sent.task = self._pool.append(sent.parcels[-1].put([letter]))
        if sent.task is None:
            self._overflow.append(sent)
        else:
            self._tasks[sent.task] = sent

    # ---- on the way back

    def _wait(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
        """Take in what happens until something is so, or for so long; return whether it is."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not is_done():
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if self._is_listened_to:
                    self._changed.wait(left)
                else:
                    self._listen(left)
                if left == 0.0:
                    return is_done()
            return True

    def _listen(self, timeout: float | None) -> None:
        """Take in what happens next. Others may push meanwhile."""
        self._is_listened_to = True
        self._changed.release()
        try:
            events = self._pool.collect(timeout)
        finally:
            self._changed.acquire()
            self._is_listened_to = False
            self._changed.notify_all()
        for event in events:
            self._absorb(event)
        for _ in range(len(self._overflow)):
            self._dispatch(self._overflow.popleft())

    def _absorb(self, event: Event) -> None:
        number = event.task if isinstance(event, Lost) else event.values[0]
        sent = self._tasks.pop(number, None)
        if sent is None:  # answered, and then its worker died
            return
        reply = self._reply_of(sent, event)
        set_message_id(reply, f"{sent.message_id}-reply")
        self.errors += reply.has_error()
        self._observer.replied(sent.message, reply)
        if sent.wanted:
            self._ready[sent.message_id] = reply
        self._close(sent)

    def _reply_of(self, sent: _Sent, event: Event) -> Message:
        """Return the reply to a message, and keep the node's new state if it has one."""
        if isinstance(event, Lost):
            reason = f"ClientApp stopped responding: {event.reason}."
            return Message(Error(CLIENT_APP_CRASHED, reason), reply_to=sent.message)
        _, kind, metadata, body, state = event.values
        if state is not None:
            self._states[sent.node_id] = state
            if not state:
                del self._states[sent.node_id]
        if kind == "expired":
            return self._unavailable(sent.message_id)
        if kind == "error":
            if metadata is None:
                return Message(Error(*body), reply_to=sent.message)
            return make_message(metadata, error=Error(*body))

        def find(facts: list[ArrayFacts]) -> ArrayRecord:
            return rebuild_arrays(facts, event.buffers([size for *_, size in facts]))

        reply = make_message(metadata, content=unpack_content(body, find))
        event.close()
        return reply

    def _close(self, sent: _Sent) -> None:
        """Forget a message, and let the next one go to its node."""
        del self._open[sent.message_id]
        waiting = self._behind[sent.node_id]
        if waiting:
            self._dispatch(waiting.popleft())
        else:
            del self._behind[sent.node_id]

    def _give_up(self, sent: _Sent) -> None:
        """Take a message back; if a client has begun it, only its reply is not wanted."""
        sent.wanted = False
        if sent in self._behind[sent.node_id]:
            self._behind[sent.node_id].remove(sent)
            del self._open[sent.message_id]
        elif sent.task is None:
            self._overflow.remove(sent)
            self._close(sent)
        elif self._pool.withdraw(sent.task):
            del self._tasks[sent.task]
            self._close(sent)

    def _unavailable(
        self, message_id: str, code: int = MESSAGE_UNAVAILABLE, reason: str = _EXPIRED
    ) -> Message:
        return unavailable_reply(self._run.run_id, message_id, code, reason)
