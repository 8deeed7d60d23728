"""What the quickstart does with its clients' metadata."""

from __future__ import annotations

import pytest
from flwr.serverapp.strategy import FedAdagrad

from fedwaggle.config import read_config
from fedwaggle.errors import ConfigError
from fedwaggle.strategy import ClientUpdate, Evaluation, RoundSummary, Training
from my_federated_project.strategy import CustomFedAdagrad, policies_of, round_line
from my_federated_project.task import TrainProcessMetadata


def update(client: str, seconds: float, *, converged: bool) -> ClientUpdate[TrainProcessMetadata]:
    return ClientUpdate(
        client=client,
        node_id=100,
        server_round=3,
        metadata=TrainProcessMetadata(seconds, converged, {"epoch_1": 0.5}),
        metadata_error=None,
        metrics={},
        num_examples=10,
        seconds=seconds,
        bytes=100,
    )


UPDATES = [update("0", 1.5, converged=True), update("4", 2.5, converged=False)]


def summary(training: Training[TrainProcessMetadata], *, is_best: bool = True) -> RoundSummary:
    metrics = {"accuracy": 0.8125, "loss": 0.5}
    return RoundSummary(3, 20, training, Evaluation(), metrics, is_best, 4.0)


def test_it_is_flowers_fedadagrad() -> None:
    assert issubclass(CustomFedAdagrad, FedAdagrad)


def test_the_metadata_of_a_round_becomes_two_numbers() -> None:
    strategy = CustomFedAdagrad(metadata=TrainProcessMetadata, fraction_evaluate=0.5)
    said = strategy.on_train_metadata(3, UPDATES)
    assert said == {"clients_converged": 1, "slowest_training_time": 2.5}


@pytest.mark.parametrize(
    ("training", "line"),
    [
        (
            Training(learning_rate=0.01, updates=UPDATES, missing=["7"]),
            "round   3/20  acc 81.25%* loss 0.500  lr 0.01000  clients 2/3  converged 1/2"
            "  slowest 4 (2.5 s)",
        ),
        (
            Training(learning_rate=0.01, updates=[update("4", 1e308, converged=False)]),
            "round   3/20  acc 81.25%* loss 0.500  lr 0.01000  clients 1/1  converged 0/1"
            "  slowest 4 (1e+308 s)",
        ),
        (Training(), "round   3/20  acc 81.25%* loss 0.500"),
    ],
)
def test_a_round_is_one_line(training: Training[TrainProcessMetadata], line: str) -> None:
    assert round_line(summary(training)) == line


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({}, []),
        ({"stop-when-converged": 0.9}, ["stop-when-converged"]),
        (
            {"stop-when-converged": 1, "rest-stragglers": 3},
            ["stop-when-converged", "rest-stragglers"],
        ),
    ],
)
def test_the_config_switches_policies_on(keys: dict[str, float], names: list[str]) -> None:
    policies = policies_of(read_config(keys))
    assert [policy.name for policy in policies] == names
    for policy in policies:  # they read what these clients say
        policy.decide(1, ["0", "4"], UPDATES, {})


def test_a_factor_of_at_most_one_would_rest_everybody_and_is_refused() -> None:
    with pytest.raises(ConfigError, match="rest-stragglers: expected 0, or a factor above 1"):
        read_config({"rest-stragglers": 0.5})
