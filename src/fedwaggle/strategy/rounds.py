"""What the steps of a round come to, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from flwr.app import ArrayRecord

from fedwaggle.identity import client_order
from fedwaggle.strategy.updates import ClientUpdate, Quarantined

__all__ = ["Evaluation", "RoundSummary", "Training"]

M_co = TypeVar("M_co", covariant=True)


@dataclass(frozen=True)
class Training(Generic[M_co]):
    """The training step of a round.

    Attributes
    ----------
    learning_rate : float | None
        The clients' learning rate, if they were sent one.
    updates : Sequence[ClientUpdate[M | None]]
        The updates that were used, by client.
    quarantined : Sequence[Quarantined]
        The replies that were not.
    missing : Sequence[str]
        Names of the clients that never answered.
    arrays : ArrayRecord | None
        The new global model; None keeps the one before.
    metrics : Mapping[str, Any]
        The clients' training metrics, averaged, and what the strategy added.
    skipped : bool
        Whether the model was kept: too few updates were admitted, or no step came of them.
    """

    learning_rate: float | None = None
    updates: Sequence[ClientUpdate[M_co | None]] = ()
    quarantined: Sequence[Quarantined] = ()
    missing: Sequence[str] = ()
    arrays: ArrayRecord | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    skipped: bool = False

    @property
    def cohort(self) -> list[str]:
        """Names of the clients that were sampled, in their order."""
        used, refused = [u.client for u in self.updates], [q.client for q in self.quarantined]
        return sorted([*used, *refused, *self.missing], key=client_order)

    @property
    def sampled(self) -> int:
        """How many clients were sampled."""
        return len(self.updates) + len(self.quarantined) + len(self.missing)

    @property
    def bytes_up(self) -> int:
        """Size of the updates together."""
        return sum(update.bytes for update in self.updates)


@dataclass(frozen=True)
class Evaluation:
    """The clients' evaluation in a round.

    Attributes
    ----------
    quarantined : Sequence[Quarantined]
        The replies that were not used.
    missing : Sequence[str]
        Names of the clients that never answered.
    metrics : Mapping[str, Any]
        The clients' evaluation metrics, averaged.
    typical : Mapping[str, float]
        The clients' median of the metric that picks the best model, if they report it.
    """

    quarantined: Sequence[Quarantined] = ()
    missing: Sequence[str] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    typical: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundSummary(Generic[M_co]):
    """A whole round.

    Attributes
    ----------
    server_round, num_rounds : int
        The round, and how many there will be; round 0 is the initial model.
    training : Training
        The training step.
    evaluation : Evaluation
        The clients' evaluation.
    metrics : Mapping[str, Any]
        The server's evaluation of the new global model.
    is_best : bool
        Whether this model is the best so far.
    seconds : float
        Wall time of the round.
    """

    server_round: int
    num_rounds: int
    training: Training[M_co]
    evaluation: Evaluation
    metrics: Mapping[str, Any]
    is_best: bool
    seconds: float
