"""What runs on stock Flower runs behind the mixin, too: weights, metrics, dtypes, odd models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedYogi,
    Krum,
    QFedAvg,
)

from fedwaggle.errors import ConfigError
from fedwaggle.runs import Run, load
from fedwaggle.runs.checkpoints import read_latest_snapshot
from fedwaggle.runs.reading import read_events
from fedwaggle.strategy import OutlierRule, RoundRules, Waggle

NAN = float("nan")


class WaggleAvg(Waggle, FedAvg):
    """The plainest one."""


def arrays_of(**values) -> ArrayRecord:
    return ArrayRecord({key: Array(np.asarray(value)) for key, value in values.items()})


def w(*values) -> ArrayRecord:
    return arrays_of(w=np.array(values, np.float32))


def reply(msg, arrays: ArrayRecord | None, **metrics) -> Message:
    records = {} if arrays is None else {"arrays": arrays}
    numbers = MetricRecord({"num-examples": 1, **metrics})
    return Message(RecordDict({**records, "metrics": numbers}), reply_to=msg)


def part(context) -> int:
    return context.node_config["partition-id"]


def events(run: Run, kind: str) -> list:
    return [e for e in read_events(run.path / "events.jsonl") if e.event == kind]


def with_waggle(base):
    return type(f"Waggle{base.__name__}", (Waggle, base), {})


# -- Weights ---------------------------------------------------------------------------------------


def test_weights_may_be_fractions_under_any_key_and_whole_ones_stay_whole(make_grid, tmp_path):
    """0.5 of client 0 at 1 and 1.5 of client 1 at 5 give (0.5 * 1 + 1.5 * 5) / 2 = 4."""

    def train(msg, context):
        quality = (0.5, 1.5)[part(context)]
        return reply(msg, w((1.0, 5.0)[part(context)]), quality=quality, loss=quality)

    options = {"fraction_evaluate": 0.0, "weighted_by_key": "quality"}
    stock = FedAvg(**options).start(make_grid(train, 2), w(0.0), 1)
    with Run.create(tmp_path) as run:
        ours = WaggleAvg(run=run, **options).start(make_grid(train, 2), w(0.0), 1)
    assert ours.arrays["w"].numpy().tolist() == stock.arrays["w"].numpy().tolist() == [4.0]
    averaged = ours.train_metrics_clientapp[1]
    assert averaged == pytest.approx(dict(stock.train_metrics_clientapp[1]))
    examples = {one.client: one.num_examples for one in load(run.path).rounds[1].updates}
    assert examples == {"0": 0.5, "1": 1.5}


# -- Metrics ---------------------------------------------------------------------------------------


def train_with_nan(msg, context):
    """Client 0 moves to 1 and client 1 to 5; client 1 has a f1 of NaN."""
    f1 = NAN if part(context) else 0.5
    return reply(msg, w(5.0 if part(context) else 1.0), f1=f1, loss=1.0)


def evaluate_with_nan(msg, context):
    """Client 1 is the better one, and has no accuracy."""
    accuracy = NAN if part(context) else 0.25
    return reply(msg, None, accuracy=accuracy, loss=float(part(context)))


def test_a_metric_of_nan_costs_a_client_that_metric_and_nothing_else(make_grid, tmp_path, caplog):
    with Run.create(tmp_path) as run, caplog.at_level("WARNING", logger="flwr"):
        grid = make_grid(train_with_nan, 2, evaluate=evaluate_with_nan)
        result = WaggleAvg(run=run).start(grid, w(0.0), 2)
    assert result.arrays["w"].numpy().tolist() == [3.0]
    assert dict(result.train_metrics_clientapp[2]) == {"f1": 0.5, "loss": 1.0}
    assert dict(result.evaluate_metrics_clientapp[2]) == {"accuracy": 0.25, "loss": 0.5}
    assert events(run, "client-quarantined") == []
    updated = {e.client: e for e in events(run, "client-updated")}
    assert (updated["0"].dropped_metrics, updated["1"].dropped_metrics) == ([], ["f1"])
    assert "f1" not in updated["1"].metrics
    (best,) = events(run, "checkpoint-saved")
    assert (best.metric, best.value) == ("accuracy", 0.25)
    dropped = [r.getMessage() for r in caplog.records if "are dropped" in r.getMessage()]
    assert len(dropped) == 4  # once for each phase of each round
    assert dropped[0] == (
        "train, round 1: metrics that are not finite are dropped: 'f1' (clients: 1)"
    )


def test_a_users_function_of_metrics_gets_no_client_with_a_dropped_one(make_grid):
    """It may read the one that was dropped. The client's weights count all the same."""

    def mean_f1(contents, key):
        values = [content["metrics"]["f1"] for content in contents]
        return MetricRecord({"f1": sum(values) / len(values)})

    strategy = WaggleAvg(fraction_evaluate=0.0, train_metrics_aggr_fn=mean_f1)
    result = strategy.start(make_grid(train_with_nan, 2), w(0.0), 1)
    assert result.arrays["w"].numpy().tolist() == [3.0]
    assert dict(result.train_metrics_clientapp[1]) == {"f1": 0.5}


def test_a_users_own_step_may_read_any_metric_so_that_one_of_nan_is_quarantined(
    make_grid, tmp_path
):
    class Mine(Waggle, FedAvg):
        def aggregate_train(self, server_round, replies):
            replies = list(replies)
            assert all(reply.content["metrics"]["f1"] == 0.5 for reply in replies)
            return super().aggregate_train(server_round, replies)

    with Run.create(tmp_path) as run:
        strategy = Mine(run=run, fraction_evaluate=0.0, min_train_nodes=1)
        result = strategy.start(make_grid(train_with_nan, 2), w(0.0), 1)
    assert result.arrays["w"].numpy().tolist() == [1.0]
    assert [(e.client, e.code) for e in events(run, "client-quarantined")] == [("1", "bad-metric")]


# -- Dtypes ----------------------------------------------------------------------------------------

LINEAR = [FedAvg, FedAvgM, FedAdagrad, FedAdam, FedYogi]
EVERY = [*LINEAR, FedMedian]
OPTIONS = {FedAvgM: {"server_momentum": 0.9, "server_learning_rate": 0.5}}


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("base", EVERY)
def test_complex_arrays_are_stepped_as_flower_steps_them(make_grid, tmp_path, base, dtype):
    """And with the infinite part of a complex number a reply is quarantined."""

    def train(msg, context):
        step = (1 + 2j) * part(context) - 0.5j
        new = (msg.content["arrays"]["w"].numpy() + step).astype(dtype)
        if part(context) == 3:
            new[1] = complex(0, np.inf)
        return reply(msg, arrays_of(w=new))

    def begin():
        return arrays_of(w=np.array([1j, 2.0], dtype))

    options = {"fraction_evaluate": 0.0, "min_train_nodes": 3, **OPTIONS.get(base, {})}
    stock = base(**options).start(make_grid(train, 3), begin(), 3).arrays["w"].numpy()
    with Run.create(tmp_path) as run:
        rules = RoundRules(outliers=OutlierRule(share=0))  # the steps are of many sizes
        strategy = with_waggle(base)(run=run, rules=rules, **options)
        ours = strategy.start(make_grid(train, 4), begin(), 3).arrays["w"].numpy()
    np.testing.assert_allclose(ours, stock, rtol=2e-5)
    assert ours.dtype == dtype
    bad = events(run, "client-quarantined")
    assert [(e.client, e.code) for e in bad] == [("3", "not-finite")] * 3
    point = read_latest_snapshot(run.path).model["w"]
    assert (point.dtype, point.tolist()) == (ours.dtype, ours.tolist())


@pytest.mark.parametrize("base", EVERY)
def test_whole_numbers_that_all_clients_agree_on_keep_all_their_digits(make_grid, base):
    """float64 has no 2**60 + 1."""

    def train(msg, context):
        new = msg.content["arrays"]["w"].numpy() + np.float32(1)
        return reply(msg, arrays_of(w=new, ids=np.array([2**60 + 1, 2**60 + 3])))

    begin = arrays_of(w=np.zeros(2, np.float32), ids=np.array([2**60 + 1, 5]))
    strategy = with_waggle(base)(fraction_evaluate=0.0)
    arrays = strategy.start(make_grid(train, 3), begin, 2).arrays
    assert arrays["ids"].numpy().tolist() == [2**60 + 1, 2**60 + 3]


# -- What has no mean ------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [*EVERY, Krum])
def test_an_infinity_of_the_model_comes_back_and_stays_and_another_is_quarantined(
    make_grid, tmp_path, base
):
    """An attention mask, as a buffer: 0 on and below the diagonal, -inf above it."""
    mask = np.triu(np.full((2, 2), -np.inf, np.float32), 1)

    def train(msg, context):
        sent = {key: array.numpy().copy() for key, array in msg.content["arrays"].items()}
        np.testing.assert_array_equal(sent["mask"], mask)
        sent["w"] = sent["w"] + np.float32(1)
        if part(context) == 3:
            sent["mask"][1, 0] = -np.inf
        if part(context) == 4:
            sent["mask"] = -mask
        return reply(msg, arrays_of(**sent))

    options = {"fraction_evaluate": 0.0, "min_train_nodes": 3, **OPTIONS.get(base, {})}
    options |= {"num_malicious_nodes": 0} if base is Krum else {}
    with Run.create(tmp_path) as run:
        strategy = with_waggle(base)(run=run, **options)
        grid = make_grid(train, 5)
        arrays = strategy.start(grid, arrays_of(w=np.zeros(2, np.float32), mask=mask), 2).arrays
    plain = with_waggle(base)(**options).start(make_grid(moved_by_1, 3), w(0.0, 0.0), 2).arrays
    np.testing.assert_array_equal(arrays["mask"].numpy(), mask)
    np.testing.assert_allclose(arrays["w"].numpy(), plain["w"].numpy(), rtol=1e-6)
    assert [e.skipped for e in events(run, "round-finished")] == [False] * 3
    bad = {(e.client, e.code) for e in events(run, "client-quarantined")}
    assert bad == {("3", "not-finite"), ("4", "not-finite")}


@pytest.mark.parametrize("base", [QFedAvg, DifferentialPrivacyServerSideFixedClipping])
def test_an_infinity_spoils_no_norm_that_a_strategy_takes_of_a_change(make_grid, base):
    def train(msg, context):
        sent = {key: array.numpy() for key, array in msg.content["arrays"].items()}
        return reply(msg, arrays_of(**{**sent, "w": sent["w"] + np.float32(1)}), train_loss=0.5)

    options = {"client_learning_rate": 0.1, "q": 0.0, "fraction_evaluate": 0.0}
    if base is not QFedAvg:
        options = {"noise_multiplier": 1e-9, "clipping_norm": 10.0, "num_sampled_clients": 2}
        options |= {"strategy": FedAvg(fraction_evaluate=0.0)}
    begin = arrays_of(w=np.zeros(2, np.float32), mask=np.array([0, -np.inf], np.float32))
    begin["m._extra_state"] = Array(np.array([0, NAN]))
    arrays = with_waggle(base)(**options).start(make_grid(train, 2), begin, 1).arrays
    assert arrays["m._extra_state"].data == begin["m._extra_state"].data  # without noise
    np.testing.assert_allclose(arrays["w"].numpy(), [1.0, 1.0], rtol=1e-5)
    np.testing.assert_allclose(arrays["mask"].numpy(), [0.0, -np.inf], atol=1e-5)


def moved_by_1(msg, context):
    return reply(msg, w(*(msg.content["arrays"]["w"].numpy() + np.float32(1))))


def test_an_infinity_that_every_client_replaces_has_a_mean(make_grid):
    """1 and 5 in place of inf give 3, as on stock Flower."""

    def train(msg, context):
        return reply(msg, w(5.0 if part(context) else 1.0))

    strategy = WaggleAvg(fraction_evaluate=0.0)
    arrays = strategy.start(make_grid(train, 2), w(np.inf), 1).arrays
    assert arrays["w"].numpy().tolist() == [3.0]


@pytest.mark.parametrize("base", EVERY)
def test_the_extra_state_of_a_module_stays_the_servers_whatever_clients_send(
    make_grid, tmp_path, base
):
    """Bytes have no mean, and a client's own may have another length."""

    class Scaled(torch.nn.Linear):
        history = b"server"

        def get_extra_state(self):
            return torch.frombuffer(bytearray(self.history), dtype=torch.uint8)

        def set_extra_state(self, state):
            self.history = bytes(state.numpy())

    def train(msg, context):
        net = Scaled(2, 1)
        net.load_state_dict(msg.content["arrays"].to_torch_state_dict())
        assert net.history == b"server"
        net.history = b"client" * (1 + part(context))
        return reply(msg, ArrayRecord(net.state_dict()))

    with Run.create(tmp_path) as run:
        strategy = with_waggle(base)(run=run, fraction_evaluate=0.0)
        begin = ArrayRecord(Scaled(2, 1).state_dict())
        arrays = strategy.start(make_grid(train, 2), begin, 2).arrays
    assert bytes(arrays["_extra_state"].numpy()) == b"server"
    assert events(run, "client-quarantined") == []


# -- Initial arrays --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        (w(1.0, NAN), r"initial arrays, 'w': expected numbers, got NaN"),
        (arrays_of(w=np.array(["a"])), r"initial arrays, 'w': expected dtype .* got <U1"),
        (arrays_of(w=np.zeros(1, "M8[s]")), r"initial arrays, 'w': expected dtype"),
        (arrays_of(w=np.zeros(1, np.longdouble)), r"initial arrays, 'w': .* use a dtype"),
        (ArrayRecord(), r"initial arrays: expected the model's, got none"),
    ],
)
def test_a_model_with_which_no_round_could_succeed_is_refused_before_any_message(
    make_grid, tmp_path, initial, message
):
    grid = make_grid(moved_by_1, 2)
    with Run.create(tmp_path) as run, pytest.raises(ConfigError, match=message):
        WaggleAvg(run=run).start(grid, initial, 1)
    assert grid.sent == []
    assert events(run, "run-started") == []


def test_nan_in_what_is_not_trained_is_no_mistake_and_stays(make_grid):
    def train(msg, context):
        sent = {key: array.numpy() for key, array in msg.content["arrays"].items()}
        return reply(msg, arrays_of(**{**sent, "w": sent["w"] + np.float32(1)}))

    begin = arrays_of(w=np.zeros(1, np.float32), last_seen=np.array([NAN]))
    strategy = with_waggle(FedAdagrad)(fraction_evaluate=0.0, trainable=["w"])
    arrays = strategy.start(make_grid(train, 2), begin, 2).arrays
    assert np.isnan(arrays["last_seen"].numpy()).all()
    assert arrays["w"].numpy() > 0
