"""The grid: what a ServerApp sees of the local engine.

It speaks Flower's ``Grid``: messages are pushed, replies are pulled, and a node that does not
answer is not in the answers. Any thread may call it. Of the threads that wait, one listens for
all; meanwhile the others may push.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedwaggle.engine.flwr_private import FlowerRun, NodeInfo
from fedwaggle.engine.local.in_flight import Observer, Traffic
from fedwaggle.engine.local.pool import MOST_OUTCOMES, Pool
from fedwaggle.grids import NamedGrid, RecordedGrid, RecordedRun, StatefulGrid, WakingGrid

__all__ = ["FIRST_NODE_ID", "LocalGrid"]

FIRST_NODE_ID = 1_000  # of partition 0; the others follow
_LONGEST_LOOK_SECONDS = 60.0  # then the clock, and what other threads pushed, are looked at anew


class LocalGrid(Grid, NamedGrid, RecordedGrid, WakingGrid, StatefulGrid):
    """A grid of nodes that live in the worker processes of this machine.

    Parameters
    ----------
    pool : Pool
        What runs the clients.
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
        self._node_ids = list(self._nodes)
        self._traffic = Traffic(pool, run_id, self._nodes, observer)
        self._changed = threading.Condition(threading.Lock())  # guards the traffic
        self._is_listened_to = False
        self._observer = observer
        self._recorded_run: RecordedRun | None = None

    @property
    def messages(self) -> int:
        """How many messages were pushed."""
        return self._traffic.messages

    @property
    def errors(self) -> int:
        """How many of them were answered by an error."""
        return self._traffic.errors

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

    def get_node_ids(self) -> list[int]:
        """Return all nodes, in the order of their partitions, once they are there.

        They are when a worker has imported the ClientApp: what a server times after this is
        the clients' work, not their start. The list is the caller's own, as Flower's is.
        """
        self._wait(lambda: self._pool.is_ready, None)
        return self._node_ids.copy()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Yield all nodes; each has its partition id for a name."""
        return (NodeInfo(node_id=n, name=str(n - FIRST_NODE_ID)) for n in self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages, in this order, and return their ids.

        Raises
        ------
        ValueError
            If a message was sent before, is a reply, or has no time to live.
        EngineError
            If more calls of this wait for replies than this process may open files.
        """
        self._wait(lambda: self._pool.is_ready, None)
        sender = self._pool.sender()
        ids = []
        for message in messages:
            with self._changed:
                ids.append(self._traffic.push(message, sender))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages that are there, in the order of the messages."""
        ids = set(message_ids)
        self._wait(lambda: self._traffic.open.keys().isdisjoint(ids), 0.0)
        with self._changed:
            return self._traffic.pull(ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages, wait, and return the replies that came, in the order of the messages.

        A message whose time to live is up is answered by an error, whatever its client does.
        What no client has begun when the time is up is taken back: nobody could pull its reply.
        """
        ids = set(self.push_messages(messages))
        self._wait(lambda: self._traffic.open.keys().isdisjoint(ids), timeout)
        with self._changed:
            late = ids.intersection(self._traffic.open)
            self._traffic.give_up(late)
            return self._traffic.pull(ids - late)

    # ---- the contract with Waggle's strategies: fedwaggle.grids

    def wait_for_replies(
        self, message_ids: Iterable[str], timeout: float | None = None
    ) -> list[str]:
        """Wait until one of these messages is answered, and return all that are.

        The replies are not read yet. Large ones stay with their senders, which wait, until each
        is pulled: a server that pulls one at a time holds one at a time.
        """
        ids = set(message_ids)
        self._wait(lambda: not self._traffic.ready.keys().isdisjoint(ids), timeout)
        with self._changed:
            while not self._is_listened_to and not self._listen(0.0):
                pass
            return self._traffic.answered(ids)

    def give_up(self, message_ids: Iterable[str]) -> None:
        """Take messages back that no client has begun, and drop the replies to the others.

        Whoever waits no longer has to say so: what nobody pulls would hold senders back.
        """
        with self._changed:
            self._traffic.give_up(message_ids)

    @property
    def recorded_run(self) -> RecordedRun | None:
        """The run whose record the strategy writes, if it does."""
        return self._recorded_run

    @recorded_run.setter
    def recorded_run(self, run: RecordedRun | None) -> None:
        self._recorded_run = run
        if run is not None:
            self._observer.run_recorded(run)

    def client_states(self) -> dict[str, bytes]:
        """Return the ``Context.state`` of the clients that have one, by name.

        The bytes are Flower's own form of a ``RecordDict``.
        """
        with self._changed:
            states = self._traffic.states
            return {str(node - FIRST_NODE_ID): state for node, state in states.items()}

    def restore_client_states(self, states: Mapping[str, bytes]) -> None:
        """Give clients the states that :meth:`client_states` returned; the others have none."""
        with self._changed:
            self._traffic.states = {
                int(name) + FIRST_NODE_ID: state for name, state in states.items()
            }

    # ---- waiting

    def _wait(self, is_done: Callable[[], bool], timeout: float | None) -> bool:
        """Take in what happens until something is so, or for so long; return whether it is."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not is_done():
                # What nobody has asked for must not hold back the sender of what somebody has.
                self._traffic.ready.read_all()
                left = math.inf if deadline is None else max(0.0, deadline - time.monotonic())
                until_end = max(0.0, self._traffic.next_end() - time.time())
                seconds = min(left, until_end, _LONGEST_LOOK_SECONDS)
                was_all = True
                if self._is_listened_to:
                    self._changed.wait(seconds)
                else:
                    was_all = self._listen(seconds)
                if was_all:  # a reply that is there came in time
                    self._traffic.expire(time.time())
                if left == 0.0 and was_all:
                    return is_done()
            return True

    def _listen(self, timeout: float) -> bool:
        """Take in what happens next, and return whether that was all. Others may push meanwhile."""
        self._is_listened_to = True
        self._changed.release()
        try:
            outcomes = self._pool.collect(timeout)
        finally:
            self._changed.acquire()
            self._is_listened_to = False
            self._changed.notify_all()
        self._traffic.absorb(outcomes)
        return len(outcomes) < MOST_OUTCOMES
