"""Decisions taken from what the clients say.

A policy reads a round's cohort and updates, and returns decisions, each with its reason, and its
new state. It is a pure function: a run that is resumed decides as one that was not interrupted.
The loop carries decisions out and records them: it ends the run, or lets clients rest.

A policy that reads only what is the same in every repeat (a loss, a flag) keeps the run
repeatable. One that reads times does not: times differ from run to run.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar

from fedwaggle.config import RunConfig
from fedwaggle.errors import ConfigError
from fedwaggle.strategy.updates import ClientUpdate

__all__ = ["Decision", "Policy", "RestStragglers", "StopWhenConverged", "policies_of"]

M = TypeVar("M")
M_contra = TypeVar("M_contra", contravariant=True)

State = Mapping[str, Any]


@dataclass(frozen=True)
class Decision:
    """Something to do, and why.

    Attributes
    ----------
    action : str
        What is done, for a person.
    reason : str
        Why, with the figures.
    clients : tuple[str, ...]
        The clients that it is about.
    stop : bool
        Whether the run ends after this round.
    rest_rounds : int
        For how many rounds the clients are left out.
    """

    action: str
    reason: str
    clients: tuple[str, ...] = ()
    stop: bool = False
    rest_rounds: int = 0


class Policy(Protocol[M_contra]):
    """Decides after a round, by what the clients said."""

    @property
    def name(self) -> str:
        """Name in the record; two policies of one run have different names."""

    def decide(
        self,
        server_round: int,
        cohort: Sequence[str],
        updates: Sequence[ClientUpdate[M_contra]],
        state: State,
    ) -> tuple[Sequence[Decision], State]:
        """Return decisions and the state for the next round.

        Parameters
        ----------
        server_round : int
            The round that is over.
        cohort : Sequence[str]
            Names of all clients that were sampled for it.
        updates : Sequence[ClientUpdate[M]]
            The updates whose metadata was accepted, by client. Clients of the cohort without one
            are missing or quarantined, or their metadata was refused.
        state : Mapping[str, Any]
            What this returned in the round before, empty at first; values that JSON can hold.
        """


@dataclass(frozen=True)
class StopWhenConverged(Generic[M]):
    """End the run once most clients say, round after round, that they have converged.

    Parameters
    ----------
    converged : Callable[[M], bool]
        Reads it from a client's metadata.
    share : float (default: 1.0)
        The share of a round's cohort that must say so; above 0, at most 1. A client that is
        missing, quarantined or without readable metadata has not said so.
    rounds : int (default: 2)
        In how many rounds in a row.
    name : str

    Raises
    ------
    ConfigError
        If ``share`` or ``rounds`` cannot work.
    """

    converged: Callable[[M], bool]
    share: float = 1.0
    rounds: int = 2
    name: str = "stop-when-converged"

    def __post_init__(self) -> None:
        mistakes = []
        if not 0 < self.share <= 1:
            mistakes.append(f"share: expected above 0 and at most 1, got {self.share!r}")
        if type(self.rounds) is not int or self.rounds < 1:
            mistakes.append(f"rounds: expected a whole number from 1, got {self.rounds!r}")
        if mistakes:
            raise ConfigError(mistakes)

    def decide(
        self,
        server_round: int,
        cohort: Sequence[str],
        updates: Sequence[ClientUpdate[M]],
        state: State,
    ) -> tuple[Sequence[Decision], State]:
        """Count the rounds in a row in which enough clients have converged."""
        said = [update.client for update in updates if self.converged(update.metadata)]
        enough = bool(said) and len(said) >= self.share * len(cohort)
        row = state.get("rounds_in_a_row", 0) + 1 if enough else 0
        decisions = []
        if row >= self.rounds:
            reason = (
                f"{len(said)} of {len(cohort)} clients have converged, and at least "
                f"{self.share:.0%} had in {row} rounds in a row"
            )
            decisions = [Decision("end the run", reason, tuple(said), stop=True)]
        return decisions, {"rounds_in_a_row": row}


@dataclass(frozen=True)
class RestStragglers(Generic[M]):
    """Leave out for some rounds who takes much longer than the others.

    Parameters
    ----------
    seconds : Callable[[M], float]
        Reads the time from a client's metadata; below 0 it counts as 0.
    factor : float (default: 3.0)
        How many times the round's median is too long; above 1.
    rest_rounds : int (default: 2)
        For how many rounds.
    name : str

    Raises
    ------
    ConfigError
        If ``factor`` or ``rest_rounds`` cannot work.
    """

    seconds: Callable[[M], float]
    factor: float = 3.0
    rest_rounds: int = 2
    name: str = "rest-stragglers"

    def __post_init__(self) -> None:
        mistakes = []
        if not self.factor > 1:
            mistakes.append(f"factor: expected a number above 1, got {self.factor!r}")
        if type(self.rest_rounds) is not int or self.rest_rounds < 1:
            mistakes.append(
                f"rest_rounds: expected a whole number from 1, got {self.rest_rounds!r}"
            )
        if mistakes:
            raise ConfigError(mistakes)

    def decide(
        self,
        server_round: int,
        cohort: Sequence[str],
        updates: Sequence[ClientUpdate[M]],
        state: State,
    ) -> tuple[Sequence[Decision], State]:
        """Compare each client's time with the median of the round."""
        # A client may say anything: below 0 it could move the median, and so the limit, below all.
        times = {update.client: max(0.0, self.seconds(update.metadata)) for update in updates}
        if not times:
            return [], state
        limit = self.factor * statistics.median(times.values())
        decisions = [
            Decision(
                f"rest for {self.rest_rounds} rounds",
                f"took {seconds:.4g} s, more than {self.factor:g} times the median "
                f"({limit / self.factor:.4g} s)",
                (client,),
                rest_rounds=self.rest_rounds,
            )
            for client, seconds in times.items()
            if seconds > limit
        ]
        return decisions, state


def policies_of(config: RunConfig, metadata: type[M] | None) -> list[Policy[M]]:
    """Return the policies that a run config switches on.

    Parameters
    ----------
    config : RunConfig
        ``stop-when-converged`` needs a field ``converged`` of the clients' metadata, and
        ``rest-stragglers`` a field ``training_time`` in seconds.
    metadata : type[M] | None
        The dataclass that clients send.

    Raises
    ------
    ConfigError
        If a policy is switched on and its field is not there.
    """
    known = {field.name for field in fields(metadata)} if metadata else set()  # type: ignore[arg-type]
    needed = {
        "stop-when-converged": ("converged", "bool", config.stop_when_converged),
        "rest-stragglers": ("training_time", "float", config.rest_stragglers),
    }
    mistakes = [
        f"{key}: expected 0, since {metadata.__name__ if metadata else 'no metadata class'} has no "
        f"field {name}; set {key}=0, or add `{name}: {kind}` to what clients send"
        for key, (name, kind, value) in needed.items()
        if value and name not in known
    ]
    if mistakes:
        raise ConfigError(mistakes)
    policies: list[Policy[M]] = []
    if config.stop_when_converged:
        policies.append(StopWhenConverged(attrgetter("converged"), config.stop_when_converged))
    if config.rest_stragglers:
        policies.append(RestStragglers(attrgetter("training_time"), config.rest_stragglers))
    return policies
