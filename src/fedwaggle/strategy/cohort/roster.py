"""The nodes of a run by name: who is there, who rests, and who is drawn in a round.

Flower draws a cohort with the unseeded global ``random`` from node ids in random order. Here
the strategy still draws it, by its own code, but from a grid that lists the nodes in the order
of their names and leaves out those that rest, and under a seed that is a function of (seed,
purpose, round). So the same run draws the same clients on every engine.

Reference: McMahan et al., arXiv:1602.05629, Algorithm 1 (the random set S_t).
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedwaggle.errors import NodesError
from fedwaggle.identity import IDENTITY_ACTION, IDENTITY_KEY, client_order, printable_name
from fedwaggle.strategy.exchange import Arrival, Patience, exchange, replies_to

if TYPE_CHECKING:
    from flwr.proto.node_pb2 import NodeInfo
    from flwr.supercore.run import Run as FlowerRun

__all__ = ["Roster", "RosterGrid", "names_of", "seeded_sampling"]

logger = logging.getLogger("flwr.fedwaggle.strategy")

T = TypeVar("T", int, str)

_MOMENT_SECONDS = 1.0
_APP_RAISED = 2  # Flower's code: an app without a handler for the question raises, too
_GATHER_PAUSE_SECONDS = 0.05
_STAND_IN = re.compile(r"node-\d+")  # what a node without a name is called


def names_of(known: Mapping[int, str], claims: Mapping[int, str]) -> dict[int, str]:
    """Return a name for every node: the known one, else the claimed one if it is nobody else's.

    Parameters
    ----------
    known : Mapping[int, str]
        Names that the engine vouches for, by node id.
    claims : Mapping[int, str]
        What other nodes call themselves, by node id; empty for a node that did not say.

    Examples
    --------
    >>> names_of({7: "site-a"}, {8: "3", 9: "site-a", 10: ""})
    {7: 'site-a', 8: '3', 9: 'node-9', 10: 'node-10'}

    Of two nodes that claim one name, neither gets it, and ``node-`` with a number is for nodes
    without a name:

    >>> names_of({}, {8: "3", 9: "3", 10: "node-8"})
    {8: 'node-8', 9: 'node-9', 10: 'node-10'}
    """
    counts = Counter([*known.values(), *claims.values()])

    def is_free(claim: str) -> bool:
        return bool(claim) and counts[claim] == 1 and not _STAND_IN.fullmatch(claim)

    named = {n: claim if is_free(claim) else _stand_in(n) for n, claim in claims.items()}
    return {**known, **named}


def _stand_in(node_id: int) -> str:
    """Return what a node without a name is called; the pattern of such names is `_STAND_IN`."""
    return f"node-{node_id}"


class Roster:
    """The nodes of a run, by name.

    Parameters
    ----------
    grid : Grid
        What carries messages to them.
    node_timeout : float
        Seconds to wait for the answers of nodes that are asked for their names.
    """

    def __init__(self, grid: Grid, node_timeout: float = 600.0) -> None:
        self.grid = grid
        self._node_timeout = node_timeout
        self._names: dict[int, str] = {}
        self._unheard: set[int] = set()  # nodes that were asked, and have not answered yet
        self._questions: list[Message] = []  # what they were asked, as often as they were
        self._present: set[int] = set()
        self._in_order: list[int] = []
        self._nameless: list[int] = []  # those of them that are called by their random ids
        self._partitions = 0  # how many there are, as far as clients have said
        self._asked_seconds = 0.0

    def clock(self) -> float:
        """Return seconds on a clock that stands still while nodes are asked for their names.

        By it one waits for nodes: a client that is silent shows nothing about who is missing.
        """
        return time.monotonic() - self._asked_seconds

    def refresh(self) -> list[int]:
        """Return the ids of the nodes that are there now, in the order of their names."""
        present = set(self.grid.get_node_ids())
        if present != self._present:  # with 100,000 nodes, sorting them costs more than a round
            if strangers := present - self._names.keys():
                self._meet(strangers, present - strangers)
            self._in_order = sorted(present, key=lambda n: client_order(self._names[n]))
            self._nameless = [n for n in self._in_order if self._names[n] == _stand_in(n)]
            self._present = present
        return self._in_order

    def gather(self, seconds: float) -> None:
        """Wait until every partition has its node, as they say how many there are.

        Flower's simulation starts the server while it still registers its nodes: whoever draws
        a cohort right away draws it from those that happen to be there.

        Parameters
        ----------
        seconds : float
            The longest wait; after it, the nodes that are there are all there are.
        """
        deadline = self.clock() + seconds
        while len(self.refresh()) < max(1, self._partitions) and self.clock() < deadline:
            time.sleep(_GATHER_PAUSE_SECONDS)

    def name(self, node_id: int) -> str:
        """Return the name of a node."""
        return self._names.get(node_id, _stand_in(node_id))

    def ask_again(self) -> None:
        """Ask nodes that have not answered once more, and take late answers to earlier questions.

        This takes a moment at most: no node is waited for twice.
        """
        if self._unheard:
            self._unheard &= set(self.grid.get_node_ids())
        if not self._unheard:
            return
        again = _questions_to(self._unheard)
        self.grid.push_messages(again)
        self._questions += again
        claims = self._hear(
            replies_to(
                self.grid, self._questions, Patience(_MOMENT_SECONDS, lambda: not self._unheard)
            )
        )
        if claims:
            self._names = names_of(_without(claims, self._names), claims)
            self._present = set()  # so that their places in the order are found anew

    def why_not_repeatable(self) -> str | None:
        """Return why a draw from these nodes cannot be repeated, or None if it can be."""
        if not self._nameless:
            return None
        some = ", ".join(self.name(n) for n in self._nameless[:5])
        silent = sum(n in self._unheard for n in self._nameless)
        fix = (
            f"{silent} have not answered so far: raise node-timeout"
            if silent
            else "add answer_identity(app) to client_app.py, and give each its own partition-id"
        )
        return (
            f"{len(self._nameless)} of {len(self._in_order)} clients have no stable name "
            f"({some}), so their sampling and seeds will differ in the next run; {fix}"
        )

    def _meet(self, strangers: set[int], others: set[int]) -> None:
        """Name the nodes that were not here before, asking those that the engine cannot name.

        Whoever is gone is forgotten: a SuperNode that starts again has a new id and its old name.
        """
        names = {n: self._names[n] for n in others}
        given = {n.node_id: n.name for n in self.grid.get_nodes() if n.node_id in strangers}
        counts = Counter([*names.values(), *given.values()])
        # Flower lets two SuperNodes register under one name: neither of them learns it.
        known = {n: label for n, label in given.items() if label and counts[label] == 1}
        self._names = names_of({**names, **known}, self._ask(sorted(strangers - known.keys())))

    def _ask(self, node_ids: Sequence[int]) -> dict[int, str]:
        """Ask nodes for their names; a node that does not say has the empty one."""
        if not node_ids:
            return {}
        questions = _questions_to(node_ids)
        self._unheard.update(node_ids)
        self._questions += questions
        heard = self._hear(exchange(self.grid, questions, Patience(self._node_timeout)))
        return {**dict.fromkeys(node_ids, ""), **heard}

    def _hear(self, arrivals: Iterable[Arrival]) -> dict[int, str]:
        """Return what nodes answer, by node: the empty name if they do not say one."""
        began = time.monotonic()
        claims: dict[int, str] = {}
        answered = set()
        for arrival in arrivals:
            answered.add(arrival.message.metadata.reply_to_message_id)
            if _is_lost(arrival.message):
                continue
            self._unheard.discard(arrival.node_id)
            claims[arrival.node_id] = _said(arrival.message, "client", str)
            partitions = _said(arrival.message, "num-partitions", int)
            self._partitions = max(self._partitions, partitions)
        self._questions = [
            question
            for question in self._questions
            if question.metadata.dst_node_id in self._unheard
            and question.metadata.message_id not in answered
        ]
        self._asked_seconds += time.monotonic() - began
        return claims


def _questions_to(node_ids: Iterable[int]) -> list[Message]:
    """Return a question for its name to each node."""
    content = RecordDict({"config": ConfigRecord()})
    return [
        Message(content, dst_node_id=node_id, message_type=f"query.{IDENTITY_ACTION}")
        for node_id in sorted(node_ids)
    ]


def _is_lost(message: Message) -> bool:
    """Return whether a reply stands for one that was lost: an app that raises has answered."""
    return message.has_error() and message.error.code != _APP_RAISED


def _without(claims: Mapping[int, str], names: Mapping[int, str]) -> dict[int, str]:
    return {n: name for n, name in names.items() if n not in claims}


def _said(message: Message, key: str, kind: type[T]) -> T:
    """Return what a client reports of itself, or the kind's empty value."""
    record = None if message.has_error() else message.content.get(IDENTITY_KEY)
    value = record.get(key) if isinstance(record, ConfigRecord) else None
    if kind is str:
        value = printable_name(value)
    return value if isinstance(value, kind) else kind()


class RosterGrid(Grid):
    """A grid whose nodes come in the order of their names, without those that rest.

    Parameters
    ----------
    roster : Roster
        The nodes.
    resting : set[str]
        Names of the clients to leave out, as long as enough others are there.
    enough : int
        How many nodes a round needs.
    node_timeout : float
        Seconds that a strategy may go on asking before there are enough.
    """

    def __init__(
        self, roster: Roster, *, resting: set[str], enough: int, node_timeout: float
    ) -> None:
        self._roster = roster
        self._resting = resting
        self._enough = enough
        self._node_timeout = node_timeout
        self._began = roster.clock()
        self.left_out: list[str] = []
        self.available = 0

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the nodes that may be drawn.

        Raises
        ------
        NodesError
            If the strategy still asks after ``node_timeout`` seconds.
        """
        present = chosen = self._roster.refresh()
        self.available, self.left_out = len(present), []
        if self._resting:
            awake = [n for n in present if self._roster.name(n) not in self._resting]
            # A client that rests is better than a run that waits.
            if len(awake) >= self._enough:
                chosen = awake
                self.left_out = sorted(self._resting, key=client_order)
        waited = self._roster.clock() - self._began
        if waited > self._node_timeout:
            there = ", ".join(self._roster.name(n) for n in present[:20]) or "none"
            raise NodesError(
                f"node-timeout: expected {self._enough} nodes, got {len(present)} ({there}) after "
                f"{waited:.0f} s; start more nodes, lower min-available-nodes and "
                "min-train-nodes, or raise node-timeout"
            )
        return chosen

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return what the grid knows of the nodes that may be drawn."""
        chosen = set(self.get_node_ids())
        return [node for node in self._roster.grid.get_nodes() if node.node_id in chosen]

    @property
    def run(self) -> FlowerRun:
        """The run."""
        return self._roster.grid.run

    def set_run(self, run: FlowerRun) -> None:
        """Set the run."""
        self._roster.grid.set_run(run)

    def create_message(  # noqa: D102  # Flower's
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return self._roster.grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push messages."""
        return self._roster.grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull replies."""
        return self._roster.grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and wait for the replies."""
        return self._roster.grid.send_and_receive(messages, timeout=timeout)


@contextmanager
def seeded_sampling(seed: int) -> Iterator[None]:
    """Let Python's global ``random``, which Flower samples with, draw by a seed in this block.

    Afterwards its state is what it was before.

    Examples
    --------
    >>> with seeded_sampling(1):
    ...     first = random.sample(range(10), 3)
    >>> with seeded_sampling(1):
    ...     again = random.sample(range(10), 3)
    >>> first == again
    True
    """
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
