"""What a grid may offer beyond Flower's ``Grid``: the contract of engines and strategies.

Flower's own grids offer none of it, and a strategy works without. The local engine's grid offers
all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    from flwr.app import Message
    from flwr.serverapp import Grid

__all__ = [
    "FEDERATION",
    "SIMULATION",
    "NamedGrid",
    "RecordedGrid",
    "RecordedRun",
    "ReplyTooLarge",
    "StatefulGrid",
    "WakingGrid",
    "engine_name",
    "is_simulated",
]

SIMULATION = "flower-simulation"
FEDERATION = "flower-superlink"
_SIMULATED = {SIMULATION, "local"}

_BY_GRID = {"InMemoryGrid": SIMULATION, "HttpGrid": FEDERATION}


class ReplyTooLarge(Exception):  # noqa: N818  # it ends up as a quarantined reply
    """A reply that is far larger than the model; nothing of it was fetched."""


@runtime_checkable
class NamedGrid(Protocol):
    """A grid that names its engine."""

    engine_name: str


class RecordedRun(Protocol):
    """A run whose record is being written: :class:`fedwaggle.runs.Run`."""

    @property
    def path(self) -> Path:
        """The run's folder."""

    def listen(self, listener: Callable[[Any], None]) -> None:
        """Call a function with each event that is recorded from now on."""


@runtime_checkable
class RecordedGrid(Protocol):
    """A grid that is given the run whose record the strategy writes, to show and return it."""

    recorded_run: RecordedRun | None


@runtime_checkable
class WakingGrid(Protocol):
    """A grid that knows which replies have arrived without fetching them."""

    def wait_for_replies(
        self, message_ids: Iterable[str], timeout: float | None = None
    ) -> Sequence[str]:
        """Wait until one of these messages is answered; return the ids of all that are."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages that are there."""

    def give_up(self, message_ids: Iterable[str]) -> None:
        """Withdraw messages that no client has begun, and drop the replies to the others."""


@runtime_checkable
class StatefulGrid(Protocol):
    """A grid that holds the ``Context.state`` of its clients, so that a run can be resumed."""

    def client_states(self) -> dict[str, bytes]:
        """Return the states of the clients that have one, by name, as Flower serialises them."""

    def restore_client_states(self, states: Mapping[str, bytes]) -> None:
        """Replace the states of all clients by these."""


def engine_name(grid: Grid) -> str:
    """Return the name of an engine; of one that is not known, its grid's class.

    Parameters
    ----------
    grid : Grid
        What carries the messages. A :class:`NamedGrid` names its engine itself.
    """
    if isinstance(grid, NamedGrid):
        return grid.engine_name
    kind = type(grid).__name__
    return _BY_GRID.get(kind, kind)


def is_simulated(grid: Grid) -> bool:
    """Return whether the number of nodes is set, each with its part of the data by number."""
    return engine_name(grid) in _SIMULATED
