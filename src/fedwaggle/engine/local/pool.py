"""The seam between the engine and what runs its clients.

The engine hands a pool tasks, and the pool reports what became of each. A task is a message, the
number of its node and the node's state; random numbers derive from the message's id. What comes
back is the reply and the node's new state, or the loss of the task with its reason. How a pool
runs clients (processes, threads, other machines) is its own business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:  # Flower takes half a second to import, and a pool may start its processes before
    from flwr.app import Message

    from fedwaggle.engine.local.replies import Reply

__all__ = ["MOST_OUTCOMES", "Answered", "Lost", "Outcome", "Pool", "Sender"]

MOST_OUTCOMES = 64
"""Of one :meth:`Pool.collect`: each may hold a file open until it is read."""


@dataclass(frozen=True, eq=False)
class Answered:
    """A task that a client has answered.

    Attributes
    ----------
    task : int
        Its number.
    reply : Reply | None
        The client's reply; its arrays may have to be read yet.
    error : tuple[int, str] | None
        Flower's code and the reason, where there is no reply. With neither, the message's time
        was up before a client began it.
    state : bytes | None
        The node's new state, as Flower serialises it; empty if it has none any more, and None if
        it stays as it was.
    """

    task: int
    reply: Reply | None = None
    error: tuple[int, str] | None = None
    state: bytes | None = None


@dataclass(frozen=True)
class Lost:
    """A task whose client ended before it answered.

    Attributes
    ----------
    task : int
        Its number.
    reason : str
        How it ended.
    by_signal : bool
        Whether a signal ended it that was not the engine's: from outside, as the system sends it
        when memory runs out, or by a crash. The client may be innocent of it.
    """

    task: int
    reason: str
    by_signal: bool


Outcome: TypeAlias = Answered | Lost


class Sender(Protocol):
    """Packs the messages of one push, so that payloads which they share are kept once."""

    def pack(self, message: Message) -> Any:  # noqa: ANN401  # each pool has a form of its own
        """Return a message as it is now, in the pool's own form; the sender may change it."""


class Pool(Protocol):
    """What runs the clients of a run."""

    @property
    def is_ready(self) -> bool:
        """Whether the app is imported; ``collect`` returns when this becomes true."""

    def sender(self) -> Sender:
        """Return a sender for the messages of one push."""

    def submit(self, packed: Any, partition: int, state: bytes) -> int | None:  # noqa: ANN401
        """Add a task, and return its number; None if too many wait already.

        Parameters
        ----------
        packed : Any
            A message, as :meth:`Sender.pack` returned it. It may be submitted again.
        partition : int
            The number of its node, from 0.
        state : bytes
            The state of its node.
        """

    def withdraw(self, task: int) -> bool:
        """Take a task back, and return whether no client had begun it."""

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
            If the app cannot be imported, or clients cannot be run.
        """

    def close(self, *, in_order: bool = False) -> None:
        """End all clients; ``in_order`` lets them end as programs do, for a few seconds."""
