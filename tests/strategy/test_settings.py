"""What ``Waggle.of`` reads from a run config, and the contract that stands in the brackets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdagrad, FedAvg
from torch import nn

from fedwaggle.config import RunConfig, read_config
from fedwaggle.errors import ConfigError
from fedwaggle.runs import Run, load
from fedwaggle.runs.best_model import BestRule
from fedwaggle.strategy import Evaluation, RoundSummary, Training, Waggle
from fedwaggle.strategy.journal import round_line

M = TypeVar("M")


@dataclass(frozen=True)
class Loss:
    loss: float


@dataclass(frozen=True)
class Time:
    training_time: float


class Reader(Waggle[Loss], FedAvg):
    pass


def contract_of(cls: type[Waggle]) -> type | None:
    contract = cls(fraction_evaluate=0.0).contract
    return None if contract is None else contract.schema


def test_the_class_in_the_brackets_is_the_contract() -> None:
    """Also through a subclass, and through a base that leaves it open."""

    class Again(Reader):
        pass

    class Open(Waggle[M], FedAvg, Generic[M]):
        pass

    class Named(Open[Time]):
        pass

    class Silent(Waggle, FedAvg):
        pass

    class Without(Waggle[None], FedAvg):
        pass

    classes = (Reader, Again, Open, Named, Silent, Without)
    assert [contract_of(cls) for cls in classes] == [Loss, Loss, None, Time, None, None]


def test_what_cannot_be_a_contract_is_an_error_where_the_class_is_written() -> None:
    with pytest.raises(
        ConfigError, match=r"Waggle\[...\]: expected the dataclass .* without quotes"
    ):

        class Quoted(Waggle["Loss"], FedAvg):
            pass

    class Plain(Waggle[dict], FedAvg):
        pass

    with pytest.raises(ConfigError, match="dict"):
        Plain()


def test_the_config_decides_and_a_setting_counts_before_it() -> None:
    config = read_config({"seed": 7, "best-metric": "mae", "best-mode": "min", "grace": 1.5})
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    strategy = Reader.of(config, None, model, fraction_train=1.0)
    assert (strategy.seed, strategy.rules.grace, strategy.fraction_train) == (7, 1.5, 1.0)
    assert strategy.journal.best_rule == BestRule("mae", "min")
    assert "1.running_mean" not in strategy.trainable
    assert "0.weight" in strategy.trainable


def test_a_policy_needs_its_field_in_the_metadata() -> None:
    """Both are missing here, and both are named, with the line to add."""
    config = RunConfig(stop_when_converged=0.5, rest_stragglers=2.0)
    with pytest.raises(ConfigError) as caught:
        Reader.of(config, None)
    assert list(caught.value.mistakes) == [
        "stop-when-converged: expected 0, since Loss has no field converged; set "
        "stop-when-converged=0, or add `converged: bool` to what clients send",
        "rest-stragglers: expected 0, since Loss has no field training_time; set "
        "rest-stragglers=0, or add `training_time: float` to what clients send",
    ]


def test_every_strategy_of_flower_takes_the_settings_of_a_config() -> None:
    class Adagrad(Waggle[Loss], FedAdagrad):
        pass

    assert Adagrad.of(RunConfig(), None, eta=0.5).eta == 0.5


@pytest.mark.parametrize(
    ("metrics", "training", "line"),
    [
        (
            {"accuracy": 0.8125, "loss": 0.5},
            Training(learning_rate=0.01, missing=["7"], metrics={"clients_converged": 1}),
            "round   3/20*  accuracy 81.25 %  loss 0.5  lr 0.01  clients 0/1  clients_converged 1",
        ),
        (
            {"mae": 12345.678, "per_class": [1.0]},
            Training(missing=["7"], metrics={"slowest": 1e308}),
            "round   3/20*  mae 1.235e+04  clients 0/1  slowest 1e+308",
        ),
        ({}, Training(), "round   3/20*"),
    ],
)
def test_a_round_is_one_line_of_what_there_is(metrics, training, line) -> None:
    summary = RoundSummary(3, 20, training, Evaluation(), metrics, True, 4.0)
    assert round_line(summary).split() == line.split()


@pytest.mark.parametrize(
    ("losses", "best_round"),
    [((0.9, 0.5, 0.7), 1), ((0.5, 0.6, 0.4), 2)],
)
def test_without_a_best_metric_the_first_one_counts_and_its_name_says_which_way(
    make_grid, tmp_path, losses, best_round
) -> None:
    """Of a loss, less is better; the accuracy beside it, here always the same, does not count."""

    def client(msg, context):
        content = {"arrays": msg.content["arrays"], "metrics": MetricRecord({"num-examples": 1})}
        return Message(RecordDict(content), reply_to=msg)

    strategy = type("Plain", (Waggle, FedAvg), {})(run=Run.create(tmp_path), fraction_evaluate=0.0)
    strategy.start(
        make_grid(client, 2),
        ArrayRecord([np.zeros(2, np.float32)]),
        num_rounds=2,
        evaluate_fn=lambda n, arrays: MetricRecord({"val_loss": losses[n], "accuracy": 0.5}),
    )
    (folder,) = tmp_path.iterdir()
    best = load(folder).best
    assert (best.metric, best.round) == ("val_loss", best_round)
