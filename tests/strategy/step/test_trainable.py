"""Laws of the names of arrays that a server optimizer steps."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdagrad, FedAvg
from torch import nn

from fedwaggle.errors import ConfigError
from fedwaggle.strategy import Waggle, trainable_names


class WaggleAdagrad(Waggle, FedAdagrad):
    """A server optimizer."""


class Tied(nn.Module):
    """An embedding whose weight is its output layer's too, and a BatchNorm with buffers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(5, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


def drift(msg, context):
    """Move each array by a step that depends on the client, and on the array's shape alone."""
    part, server_round = context.node_config["partition-id"], msg.content["config"]["server-round"]
    arrays = ArrayRecord()
    for key, array in msg.content["arrays"].items():
        values = array.numpy()
        rng = np.random.default_rng([part, server_round, values.size])
        arrays[key] = Array(np.asarray(values + rng.normal(size=values.shape), values.dtype))
    metrics = MetricRecord({"num-examples": part + 1})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)


def start(grid, arrays, trainable, base=WaggleAdagrad):
    strategy = base(trainable=trainable, fraction_evaluate=0.0, eta=0.1, tau=0.1)
    return strategy.start(grid, arrays, 2).arrays


def test_tied_weights_are_stepped_alike_under_each_of_their_names(make_grid):
    """Two rounds of FedAdagrad: the bytes of a model that has the weight once, under one name."""
    model = Tied()
    assert len(list(model.named_parameters())) == 3
    tied = start(make_grid(drift, 3), ArrayRecord(model.state_dict()), trainable_names(model))
    once = {key: value for key, value in model.state_dict().items() if key != "head.weight"}
    names = [name for name, _ in model.named_parameters()]
    reference = start(make_grid(drift, 3), ArrayRecord(once), names)
    assert tied["embed.weight"].data == reference["embed.weight"].data
    assert tied["head.weight"].data == reference["embed.weight"].data
    assert tied["norm.running_mean"].data == reference["norm.running_mean"].data


def test_a_name_that_the_model_lacks_is_refused_before_a_client_is_asked(make_grid):
    """``torch.compile`` puts a prefix before each name of the model that it wraps."""
    grid = make_grid(drift, 2)
    model = nn.Linear(3, 2)
    names = [f"_orig_mod.{name}" for name in trainable_names(model)]
    with pytest.raises(ConfigError) as caught:
        start(grid, ArrayRecord(model.state_dict()), names)
    assert grid.sent == []
    first, second = str(caught.value).splitlines()
    assert "expected a key of the initial arrays, got '_orig_mod.bias'" in first
    assert "the nearest is 'bias'" in first
    assert "the nearest is 'weight'" in second


def test_many_wrong_names_are_counted(make_grid):
    arrays = ArrayRecord(nn.Linear(3, 2).state_dict())
    with pytest.raises(ConfigError, match="995 more names"):
        start(make_grid(drift, 2), arrays, [f"block.{n}.weight" for n in range(1000)])


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_weight_with_one_trainable_name_is_warned_about(make_grid, caplog, tied):
    """Arrays that are equal because they are all zeros, or all ones, are no sign of it."""
    model = Tied()
    arrays = ArrayRecord(model.state_dict())
    names = [name for name, _ in model.named_parameters()]
    arrays["zeros"], arrays["more_zeros"] = (Array(np.zeros(3, np.float32)) for _ in range(2))
    if not tied:
        arrays["head.weight"] = Array(np.ones((5, 3), np.float32))
    with caplog.at_level(logging.WARNING, logger="flwr"):
        start(make_grid(drift, 2), arrays, [*names, "zeros"])
    warning = "trainable: 'head.weight' has the values of 'embed.weight'"
    assert caplog.text.count(warning) == caplog.text.count("trainable:") == int(tied)


def test_without_a_server_optimizer_there_is_nothing_to_warn_about(make_grid, caplog):
    class WaggleAvg(Waggle, FedAvg):
        pass

    model = Tied()
    names = [name for name, _ in model.named_parameters()]
    with caplog.at_level(logging.WARNING, logger="flwr"):
        strategy = WaggleAvg(trainable=names, fraction_evaluate=0.0)
        strategy.start(make_grid(drift, 2), ArrayRecord(model.state_dict()), 1)
    assert "trainable" not in caplog.text
