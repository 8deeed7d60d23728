"""The strategy: Flower's FedAdagrad, and what this project does with its clients' metadata."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from flwr.serverapp.strategy import FedAdagrad

from fedwaggle.config import RunConfig
from fedwaggle.strategy import (
    ClientUpdate,
    Policy,
    RestStragglers,
    RoundSummary,
    StopWhenConverged,
    Waggle,
)
from my_federated_project.task import TrainProcessMetadata

logger = logging.getLogger("flwr.my_federated_project")  # below Flower's, so that its log shows it


class CustomFedAdagrad(Waggle[TrainProcessMetadata], FedAdagrad):
    """FedAdagrad that reads each client's :class:`TrainProcessMetadata`.

    ``Waggle`` decodes the metadata, sets the learning rate of each round, records the run and
    keeps the best model. The step itself is Flower's.

    References
    ----------
    Reddi et al., Adaptive Federated Optimization, arXiv:2003.00295.
    """

    def on_train_metadata(
        self, server_round: int, updates: Sequence[ClientUpdate[TrainProcessMetadata]]
    ) -> Mapping[str, float]:
        """Read what the clients said about their training, before their weights are used."""
        times = [update.metadata.training_time for update in updates]
        return {
            "clients_converged": sum(update.metadata.converged for update in updates),
            "slowest_training_time": max(times, default=0.0),  # s
        }

    def on_round_end(self, summary: RoundSummary[TrainProcessMetadata]) -> None:
        """Log the round on one line."""
        logger.info(round_line(summary))


def policies_of(config: RunConfig) -> list[Policy[TrainProcessMetadata]]:
    """Return the policies that the config switches on: decisions taken from metadata."""
    policies: list[Policy[TrainProcessMetadata]] = []
    if config.stop_when_converged:
        policies.append(
            StopWhenConverged(lambda said: said.converged, share=config.stop_when_converged)
        )
    if config.rest_stragglers:
        policies.append(
            RestStragglers(lambda said: said.training_time, factor=config.rest_stragglers)
        )
    return policies


def round_line(summary: RoundSummary[TrainProcessMetadata]) -> str:
    """Return one line on a round: model, learning rate, clients, converged, slowest client."""
    training = summary.training
    model = (
        f"round {summary.server_round:3d}/{summary.num_rounds}"
        f"  acc {100 * summary.metrics['accuracy']:5.2f}%{'*' if summary.is_best else ' '}"
        f" loss {_short(summary.metrics['loss'], 3)}"
    )
    sampled = len(training.cohort)
    if sampled == 0:
        return model.rstrip()
    said = [(update.client, update.metadata) for update in training.updates if update.metadata]
    clients = (
        f"  lr {training.learning_rate or 0:.5f}  clients {len(training.updates)}/{sampled}"
        f"  converged {sum(metadata.converged for _, metadata in said)}/{len(said)}"
    )
    if not said:
        return model + clients
    client, slowest = max(said, key=lambda pair: pair[1].training_time)
    return f"{model}{clients}  slowest {client} ({_short(slowest.training_time, 1)} s)"


def _short(value: float, decimals: int) -> str:
    """Return a number that fits a line, even if a client says that it took 1e308 seconds."""
    return f"{value:.{decimals}f}" if abs(value) < 1e6 else f"{value:.3g}"
