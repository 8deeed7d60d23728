"""What a start is given: what was asked for, the settings of the mixin, and the hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp.strategy import Strategy

from fedwaggle.runs import Run
from fedwaggle.strategy.policies import Policy
from fedwaggle.strategy.replies.forms import Form
from fedwaggle.strategy.rules import RoundRules
from fedwaggle.strategy.updates import ClientUpdate, Contract, RoundSummary

__all__ = ["EvaluateFn", "Hooks", "Plan", "Settings"]

M = TypeVar("M")
EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


@dataclass(frozen=True)
class Plan:
    """What ``start`` was asked for.

    Attributes
    ----------
    num_rounds : int
        Rounds of the run.
    timeout : float
        Seconds that each phase of a round may take.
    train_config, evaluate_config : ConfigRecord
        What all clients are sent.
    evaluate : EvaluateFn
        The server's evaluation of a model.
    """

    num_rounds: int
    timeout: float
    train_config: ConfigRecord
    evaluate_config: ConfigRecord
    evaluate: EvaluateFn


@dataclass(frozen=True)
class Settings(Generic[M]):
    """What the mixin knows besides the Flower strategy; see :class:`Waggle`."""

    contract: Contract[M] | None
    max_metadata_bytes: int
    run: Run | None
    seed: int
    trainable: frozenset[str] | None
    form: Form
    rules: RoundRules
    policies: Sequence[Policy[M]]
    attributes: frozenset[str]  # of the strategy that hold settings, which are no state


class Hooks(Strategy, Generic[M]):
    """What a subclass of the mixin may say, and the loop calls."""

    def on_train_metadata(
        self, server_round: int, updates: Sequence[ClientUpdate[M]]
    ) -> Mapping[str, float] | None:
        """Read what the clients of a round said, before their weights are aggregated.

        Parameters
        ----------
        server_round : int
            The round.
        updates : Sequence[ClientUpdate[M]]
            The updates whose metadata was accepted, by client.

        Returns
        -------
        Mapping[str, float] | None
            Numbers to record with the round, beside the averaged training metrics.
        """

    def on_round_end(self, summary: RoundSummary[M]) -> None:
        """Do something at the end of a round, round 0 (the initial model) included."""
