"""What the quickstart does with its clients' metadata."""

from __future__ import annotations

import pytest
from flwr.serverapp.strategy import FedAdagrad

from fedwaggle.config import read_config
from fedwaggle.strategy import ClientUpdate
from my_federated_project import task
from my_federated_project.strategy import CustomFedAdagrad
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


def test_it_is_flowers_fedadagrad_with_the_settings_of_the_config() -> None:
    config = read_config({"fraction-train": 0.25, "server-eta": 0.3, "lr": 0.04})
    strategy = CustomFedAdagrad.of(config, None, task.make_model(), eta=config.server_eta)
    assert isinstance(strategy, FedAdagrad)
    assert (strategy.fraction_train, strategy.eta) == (0.25, 0.3)
    assert [strategy.learning_rate(number) for number in (1, 6)] == [0.04, 0.02]
    assert strategy.contract.schema is TrainProcessMetadata


def test_the_metadata_of_a_round_becomes_two_numbers() -> None:
    said = CustomFedAdagrad(fraction_evaluate=0.5).on_train_metadata(3, UPDATES)
    assert said == {"clients_converged": 1, "slowest_training_time": 2.5}


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
    strategy = CustomFedAdagrad.of(read_config(keys), None)
    assert [policy.name for policy in strategy.policies] == names
    for policy in strategy.policies:  # they read what these clients send
        policy.decide(1, ["0", "4"], UPDATES, {})
