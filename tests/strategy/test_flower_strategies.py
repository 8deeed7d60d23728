"""The mixin goes before every strategy of Flower's, and each still takes its own step."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
)

from fedwaggle.runs import Request, Run
from fedwaggle.strategy import Waggle
from fedwaggle.strategy.aggregation import takes_mean

NODES = 8
LINEAR = [FedAvg, FedAvgM, FedProx, FedAdagrad, FedAdam, FedYogi]
OTHERS = [FedMedian, FedTrimmedAvg, Krum, MultiKrum, Bulyan]
OPTIONS = {
    FedAvgM: {"server_momentum": 0.9, "server_learning_rate": 0.5},
    FedProx: {"proximal_mu": 0.1},
    FedTrimmedAvg: {"beta": 0.2},
    Krum: {"num_malicious_nodes": 1},
    MultiKrum: {"num_malicious_nodes": 1, "num_nodes_to_select": 3},
    Bulyan: {"num_malicious_nodes": 1},
}


def client(msg, context):
    """Move each weight by something that depends on the client and on the round."""
    part = context.node_config["partition-id"]
    rng = np.random.default_rng([part, msg.content["config"]["server-round"]])
    sent = msg.content["arrays"]
    arrays = ArrayRecord(
        {
            key: Array((array.numpy() + rng.normal(size=array.shape)).astype(np.float32))
            for key, array in sent.items()
        }
    )
    metrics = MetricRecord({"train_loss": 1.0 + part, "num-examples": part + 1})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)


def model() -> ArrayRecord:
    rng = np.random.default_rng(0)
    shapes = {"a": (4, 3), "b": (5,)}
    return ArrayRecord(
        {key: Array(rng.normal(size=shape).astype(np.float32)) for key, shape in shapes.items()}
    )


def final(strategy, grid):
    return strategy.start(grid, model(), 3).arrays


def with_waggle(base):
    return type(f"Waggle{base.__name__}", (Waggle, base), {})


@pytest.mark.parametrize("base", [*LINEAR, *OTHERS])
def test_three_rounds_are_flowers_own(make_grid, base):
    """8 clients, 3 rounds: the model is the stock strategy's, within float32's rounding."""
    options = {"fraction_evaluate": 0.0, **OPTIONS.get(base, {})}
    stock = final(base(**options), make_grid(client, NODES))
    ours = final(with_waggle(base)(**options), make_grid(client, NODES, reverse=True))
    assert list(ours) == list(stock)
    for key in stock:
        np.testing.assert_allclose(ours[key].numpy(), stock[key].numpy(), rtol=2e-5, atol=2e-5)
        assert ours[key].numpy().dtype == np.float32


@pytest.mark.parametrize("base", [*LINEAR, *OTHERS])
def test_the_order_of_arrival_changes_no_bit(make_grid, base):
    options = {"fraction_evaluate": 0.0, **OPTIONS.get(base, {})}
    forwards = final(with_waggle(base)(**options), make_grid(client, NODES))
    backwards = final(with_waggle(base)(**options), make_grid(client, NODES, reverse=True))
    assert {k: a.data for k, a in forwards.items()} == {k: a.data for k, a in backwards.items()}


@pytest.mark.parametrize(
    ("base", "folds"), [*((base, True) for base in LINEAR), *((base, False) for base in OTHERS)]
)
def test_only_what_needs_every_reply_gets_every_reply(base, folds):
    options = {"fraction_evaluate": 0.0, **OPTIONS.get(base, {})}
    assert takes_mean(with_waggle(base)(**options)) is folds


def test_a_users_own_aggregation_gets_every_reply_in_the_order_of_names(make_grid):
    seen = []

    class Mine(Waggle, FedAvg):
        def aggregate_train(self, server_round, replies):
            replies = list(replies)
            metrics = [reply.content["metrics"] for reply in replies]
            seen.append([record["num-examples"] for record in metrics])
            return super().aggregate_train(server_round, replies)

    final(Mine(fraction_evaluate=0.0), make_grid(client, 4, reverse=True))
    assert seen == [[1, 2, 3, 4]] * 3


@pytest.mark.parametrize(
    ("base", "options", "folds"),
    [
        (
            DifferentialPrivacyServerSideFixedClipping,
            {"noise_multiplier": 0.1, "clipping_norm": 1.0, "num_sampled_clients": 4},
            False,
        ),
        (
            DifferentialPrivacyServerSideAdaptiveClipping,
            {"noise_multiplier": 0.1, "num_sampled_clients": 4},
            False,
        ),
        (
            DifferentialPrivacyClientSideFixedClipping,
            {"noise_multiplier": 0.1, "clipping_norm": 1.0, "num_sampled_clients": 4},
            True,
        ),
    ],
)
def test_privacy_strategies_run_and_keep_their_state(make_grid, tmp_path, base, options, folds):
    """Their noise is not seeded, on purpose: who knows the seed could take it off again."""
    strategy_class = with_waggle(base)
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=4, min_available_nodes=4)
    with Run.create(tmp_path, request=Request()) as run:
        strategy = strategy_class(strategy=inner, run=run, **options)
        assert takes_mean(strategy) is folds
        arrays = final(strategy, make_grid(client, 4))
    assert list(arrays) == ["a", "b"]
    assert all(np.isfinite(array.numpy()).all() for array in arrays.values())
    assert (run.path / "snapshots" / "round-000003.safetensors").exists()
