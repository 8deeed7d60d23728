"""Grids that run a real ClientApp in this process: true messages, no network, no mocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import count

import pytest
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run as FlowerRun
from flwr.supercore.task_identity import TaskIdentity

from fedwaggle.client import answer_identity
from fedwaggle.runs import writer

RUN_ID = 1


class InProcessGrid(Grid):
    """Nodes 100, 101, ... with partition ids 0, 1, ... that answer when they are pulled.

    It must be asked, like Flower's networked grid, and the strategy asks it from several threads.
    The clients answer one after the other all the same: real ones have a process each, and two
    threads that read array headers at once trip over each other in Python 3.11's ``ast`` (a
    SystemError) wherever a garbage collection runs Python code, as Hypothesis makes it do.
    """

    def __init__(self, app: ClientApp, num_nodes: int, names: Sequence[str] = ()) -> None:
        self.app = app
        self.names = names
        self._one_client = threading.Lock()
        self.num_nodes = num_nodes
        self.contexts = {
            100 + i: Context(
                run_id=RUN_ID,
                node_id=100 + i,
                node_config={"partition-id": i, "num-partitions": num_nodes},
                state=RecordDict(),
                run_config={},
            )
            for i in range(num_nodes)
        }
        self.silent: set[int] = set()
        self.sent: list[Message] = []
        self._ids = count(1)
        self._inbox: dict[str, Message] = {}

    def client_states(self) -> dict[str, bytes]:
        return {}

    def restore_client_states(self, states: Mapping[str, bytes]) -> None:
        """Forget them: the clients' contexts are kept here."""

    def set_run(self, run: FlowerRun) -> None:
        raise NotImplementedError

    @property
    def run(self) -> FlowerRun:
        return FlowerRun.create_empty(RUN_ID)

    def create_message(self, *args: object, **kwargs: object) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def get_nodes(self) -> Iterable[NodeInfo]:
        names = dict(zip(self.contexts, self.names, strict=False))
        return [NodeInfo(node_id=n, name=names.get(n)) for n in self.contexts]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(next(self._ids))
            self._inbox[message.metadata.message_id] = message
            if message.metadata.message_type in ("train", "evaluate"):
                self.sent.append(message)
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        waiting = [self._inbox.pop(i) for i in sorted(message_ids, key=int) if i in self._inbox]
        return [self._answer(m) for m in waiting if self._answers(m)]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return self.pull_messages(list(self.push_messages(messages)))

    def _answers(self, message: Message) -> bool:
        is_query = message.metadata.message_type.startswith("query")
        return is_query or message.metadata.dst_node_id not in self.silent

    def _answer(self, message: Message) -> Message:
        inbound = deepcopy(message)
        try:
            with self._one_client:
                return self.app(inbound, self.contexts[message.metadata.dst_node_id])
        except Exception as error:
            return Message(Error(2, f"{type(error)}:<'{error}'>"), reply_to=inbound)


class OrderedGrid(InProcessGrid):
    """The same nodes, but their replies arrive one by one, by node: rising, or falling.

    It wakes who waits, like the local engine's grid, so that one thread pulls all replies. Each
    reply arrives while it is waited for: with no time left, none does.
    """

    def __init__(
        self, app: ClientApp, num_nodes: int, names: Sequence[str] = (), *, reverse: bool
    ) -> None:
        super().__init__(app, num_nodes, names)
        self.arrived: list[int] = []  # nodes, one for each reply
        self._next_of = max if reverse else min
        self._there: set[str] = set()  # messages whose replies have arrived

    def wait_for_replies(self, message_ids: Iterable[str], timeout: float) -> list[str]:
        """Let the next reply arrive, if there is time; wait for ``timeout`` if none will."""
        asked = set(message_ids)
        waiting = {
            message.metadata.dst_node_id: key
            for key, message in self._inbox.items()
            if key in asked - self._there and self._answers(message)
        }
        if not waiting or timeout <= 0:
            time.sleep(timeout)
        else:
            node = self._next_of(waiting)
            self.arrived.append(node)
            self._there.add(waiting[node])
        return sorted(asked & self._there, key=int)

    def give_up(self, message_ids: Iterable[str]) -> None:
        """Forget messages whose replies are not wanted any more."""
        for message_id in message_ids:
            self._inbox.pop(message_id, None)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        there = self._there.intersection(message_ids)
        self._there -= there
        return super().pull_messages(there)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        ids = list(self.push_messages(messages))
        return [m for _ in ids for m in self.pull_messages(self.wait_for_replies(ids, 60))]


@pytest.fixture(autouse=True)
def task_identity() -> Iterator[None]:
    """Give Flower the identity of a server, which building any message needs."""
    keys = ("_task_id", "_run_id", "_node_id")
    before = {key: getattr(TaskIdentity, key) for key in keys}
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, 1
    yield
    for key, value in before.items():
        setattr(TaskIdentity, key, value)


@pytest.fixture(autouse=True)
def no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no reports: there are many runs here, and each would start a process."""
    monkeypatch.setattr(writer, "draw_report", lambda run: None)


@pytest.fixture
def make_grid() -> Callable[..., InProcessGrid]:
    """Return a function from (train, evaluate, number of nodes, names) to a grid.

    Its replies arrive as its threads happen to pull them; with ``in_order`` by rising node, and
    with ``reverse`` by falling node.
    """

    def make(
        train: Callable[[Message, Context], Message],
        num_nodes: int,
        *,
        evaluate: Callable[[Message, Context], Message] | None = None,
        names: Sequence[str] = (),
        in_order: bool = False,
        reverse: bool = False,
    ) -> InProcessGrid:
        app = answer_identity(ClientApp())
        app.train()(train)
        if evaluate is not None:
            app.evaluate()(evaluate)
        if in_order or reverse:
            return OrderedGrid(app, num_nodes, names, reverse=reverse)
        return InProcessGrid(app, num_nodes, names)

    return make
