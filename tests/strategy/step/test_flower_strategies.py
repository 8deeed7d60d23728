"""The mixin goes before every strategy of Flower's, and each still takes its own step."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyClientSideAdaptiveClipping,
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
    QFedAvg,
)

from fedwaggle.errors import NodesError
from fedwaggle.runs import Request, Run
from fedwaggle.runs.reading import read_events
from fedwaggle.strategy import RoundRules, Waggle
from fedwaggle.strategy.bounds.outliers import OutlierRule
from fedwaggle.strategy.step import metric_functions
from fedwaggle.strategy.step.aggregation import takes_mean

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
    """8 clients, 3 rounds: model and metrics are the stock strategy's, within their rounding."""
    options = {"fraction_evaluate": 0.0, **OPTIONS.get(base, {})}
    stock = base(**options).start(make_grid(client, NODES), model(), 3)
    grid = make_grid(client, NODES, reverse=True)
    ours = with_waggle(base)(**options).start(grid, model(), 3)
    assert list(ours.arrays) == list(stock.arrays)
    for key, array in stock.arrays.items():
        np.testing.assert_allclose(ours.arrays[key].numpy(), array.numpy(), rtol=2e-5, atol=2e-5)
        assert ours.arrays[key].numpy().dtype == np.float32
    for server_round, metrics in stock.train_metrics_clientapp.items():
        assert dict(ours.train_metrics_clientapp[server_round]) == pytest.approx(dict(metrics))


def test_krum_reports_the_metrics_of_the_replies_that_it_selects_alone(make_grid):
    """Clients 0 to 5 move by 1 with loss 0.1 and a score; client 6 by 99 with loss 70."""

    def train(msg, context):
        if context.node_config["partition-id"] == 6:
            return moved(msg, by=99.0, metrics={"train_loss": 70.0})
        return moved(msg, metrics={"train_loss": 0.1, "score": 0.5})

    options = {"num_malicious_nodes": 1, "num_nodes_to_select": 3, "fraction_evaluate": 0.0}
    result = with_waggle(MultiKrum)(**options).start(make_grid(train, 7), model(), 1)
    said = dict(result.train_metrics_clientapp[1])
    assert said == pytest.approx({"train_loss": 0.1, "norm_bit": 1.0, "score": 0.5})


def test_evaluations_that_a_strategy_leaves_out_are_not_in_its_metrics(make_grid):
    """Of losses 0, 1 and 2, the override passes on the last alone."""

    class Mine(Waggle, FedAvg):
        def aggregate_evaluate(self, server_round, replies):
            return super().aggregate_evaluate(server_round, list(replies)[-1:])

    def evaluate(msg, context):
        loss = float(context.node_config["partition-id"])
        metrics = MetricRecord({"loss": loss, "num-examples": 1})
        return Message(RecordDict({"metrics": metrics}), reply_to=msg)

    result = Mine().start(make_grid(client, 3, evaluate=evaluate), model(), 1)
    assert dict(result.evaluate_metrics_clientapp[1]) == {"loss": 2.0}


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


# -- What one client can do to a step


def moved(msg, by=1.0, metrics=()):
    """Return a reply that moves each weight by the same."""
    sent = msg.content["arrays"]
    arrays = {k: Array((a.numpy() + np.float32(by)).astype(np.float32)) for k, a in sent.items()}
    numbers = MetricRecord({"train_loss": 0.5, "norm_bit": 1.0, "num-examples": 1, **dict(metrics)})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": numbers}), reply_to=msg)


@pytest.mark.parametrize(
    ("base", "options"),
    [
        (DifferentialPrivacyServerSideFixedClipping, {"clipping_norm": 1.0}),
        (DifferentialPrivacyServerSideAdaptiveClipping, {}),
    ],
)
@pytest.mark.parametrize("rules", [RoundRules(), RoundRules(outliers=OutlierRule(share=0))])
def test_a_client_that_returns_the_model_as_it_was_ends_no_private_run(
    make_grid, tmp_path, base, options, rules
):
    """Flower clips each update on the server by dividing by its norm, which is 0."""

    def train(msg, context):
        return moved(msg, by=float(context.node_config["partition-id"] > 0))

    with Run.create(tmp_path, request=Request()) as run:
        strategy = with_waggle(base)(
            strategy=FedAvg(fraction_evaluate=0.0),
            run=run,
            rules=rules,
            noise_multiplier=0.1,
            num_sampled_clients=3,
            **options,
        )
        strategy.start(make_grid(train, 4), model(), 2)
    events = list(read_events(run.path / "events.jsonl"))
    bad = [(e.round, e.client, e.code) for e in events if e.event == "client-quarantined"]
    assert bad == [(1, "0", "no-change"), (2, "0", "no-change")]
    assert [e.updates for e in events if e.event == "round-finished"] == [0, 3, 3]


@pytest.mark.parametrize("loss", [None, -1.0])
def test_a_client_without_a_loss_or_with_one_below_0_costs_q_fedavg_that_client(
    make_grid, tmp_path, loss
):
    """The 3 others move the weights by 1 at the same loss, so that h / delta makes it 1."""

    def train(msg, context):
        reply = moved(msg)
        if context.node_config["partition-id"] == 0:
            numbers = {"num-examples": 1, **({} if loss is None else {"train_loss": loss})}
            reply.content["metrics"] = MetricRecord(numbers)
        return reply

    with Run.create(tmp_path) as run:
        options = {"client_learning_rate": 0.1, "q": 0.0, "fraction_evaluate": 0.0}
        strategy = with_waggle(QFedAvg)(run=run, **options)
        arrays = strategy.start(make_grid(train, 4), model(), 2).arrays
    for key, array in model().items():
        np.testing.assert_allclose(arrays[key].numpy(), array.numpy() + 2.0, rtol=1e-5)
    bad = [e for e in read_events(run.path / "events.jsonl") if e.event == "client-quarantined"]
    assert [(e.client, e.code) for e in bad] == [("0", "bad-metric")] * 2


def test_a_client_that_does_not_say_whether_it_clipped_costs_only_itself(make_grid):
    def train(msg, context):
        reply = moved(msg)
        if context.node_config["partition-id"] == 0:
            del reply.content["metrics"]["norm_bit"]
        return reply

    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=4)
    strategy = with_waggle(DifferentialPrivacyClientSideAdaptiveClipping)(
        strategy=inner, noise_multiplier=1e-6, num_sampled_clients=3, clipped_count_stddev=1.0
    )
    arrays = strategy.start(make_grid(train, 4), model(), 1).arrays
    np.testing.assert_allclose(arrays["a"].numpy(), model()["a"].numpy() + 1.0, rtol=1e-4)


HUGE = {  # for each strategy, what one client can send that is finite where the step is not
    FedAdagrad: {"by": 1e38},
    FedAdam: {"by": 1e38},
    FedYogi: {"by": 1e38},
    FedAvgM: {"by": 3e38},
    QFedAvg: {"metrics": {"train_loss": 1e300}},
}


@pytest.mark.parametrize("base", [base for base in HUGE if base is not QFedAvg])
def test_a_step_to_infinity_is_taken_back_and_the_rest_of_the_run_is_as_if_it_had_not_been(
    make_grid, tmp_path, caplog, base
):
    """Round 2 is spoiled. Round 3 begins from round 1's model and moments, but has its number."""
    unbounded = RoundRules(outliers=OutlierRule(share=0))
    options = {"fraction_evaluate": 0.0, "rules": unbounded, **OPTIONS.get(base, {})}
    if base is FedAvgM:
        options["server_learning_rate"] = 5.0  # 5 times 3e38 / 4 is too large for float32

    def train(spoiled, msg, context):
        server_round = msg.content["config"]["server-round"]
        is_bad = spoiled and server_round == 2 and context.node_config["partition-id"] == 0
        return moved(msg, **HUGE[base]) if is_bad else moved(msg, by=0.1 * server_round)

    def skipping(strategy_class):
        """Return a run in which nobody answers in round 2: the model stays for that round."""

        def client(msg, context):
            if msg.content["config"]["server-round"] == 2:
                raise RuntimeError("not today")
            return train(False, msg, context)

        return strategy_class(**options).start(make_grid(client, 4), model(), 4).arrays

    with Run.create(tmp_path) as run, caplog.at_level("WARNING", logger="flwr"):
        strategy = with_waggle(base)(run=run, **options)
        grid = make_grid(lambda msg, context: train(True, msg, context), 4)
        arrays = strategy.start(grid, model(), 4).arrays
    expected = skipping(with_waggle(base))
    assert {k: a.data for k, a in arrays.items()} == {k: a.data for k, a in expected.items()}
    assert np.isfinite(arrays["a"].numpy()).all()
    finished = [e for e in read_events(run.path / "events.jsonl") if e.event == "round-finished"]
    assert [e.skipped for e in finished] == [False, False, True, False, False]
    assert [e.updates for e in finished] == [0, 4, 4, 4, 4]
    assert "NaN or an infinity" in caplog.text
    assert "is taken back" in caplog.text


def test_steps_to_infinity_in_every_round_end_the_run(make_grid):
    """As 3 rounds in a row without usable updates would."""

    def train(msg, context):
        return moved(msg, by=1e38)

    strategy = with_waggle(FedAdagrad)(
        fraction_evaluate=0.0, rules=RoundRules(max_skipped_rounds=3)
    )
    with pytest.raises(NodesError, match=r"3 rounds in a row .* a step that was taken back"):
        strategy.start(make_grid(train, 4), model(), 9)


# -- What a server optimizer steps


def test_a_users_override_of_a_server_optimizer_leaves_the_buffers_to_their_mean(make_grid):
    """3 rounds of clients that measure a variance of 0.05 and count to 100 a round."""

    class Mine(Waggle, FedAdagrad):
        def aggregate_train(self, server_round, replies):
            replies = list(replies)
            seen.append([list(reply.content["arrays"]) for reply in replies])
            return super().aggregate_train(server_round, replies)

    def net():
        values = {
            "w": np.zeros(2, np.float32),
            "bn.running_var": np.ones(3, np.float32),
            "bn.num_batches_tracked": np.array(0),
        }
        return ArrayRecord({key: Array(value) for key, value in values.items()})

    def train(msg, context):
        new = {
            "bn.num_batches_tracked": np.array(100 * msg.content["config"]["server-round"]),
            "bn.running_var": np.full(3, 0.05, np.float32),
            "w": msg.content["arrays"]["w"].numpy() + np.float32(0.1),
        }
        metrics = MetricRecord({"num-examples": 1})
        arrays = ArrayRecord({key: Array(value) for key, value in new.items()})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)

    seen = []
    options = {"fraction_evaluate": 0.0, "tau": 0.1, "trainable": ["w"]}
    mine, plain = (
        strategy_class(**options).start(make_grid(train, 3), net(), 3).arrays
        for strategy_class in (Mine, with_waggle(FedAdagrad))
    )
    assert not takes_mean(Mine(**options))
    assert mine["bn.running_var"].numpy().tolist() == [np.float32(0.05)] * 3
    assert mine["bn.num_batches_tracked"].numpy() == 300
    np.testing.assert_allclose(mine["w"].numpy(), plain["w"].numpy(), rtol=1e-6)
    assert seen == [[list(net())] * 3] * 3  # the model's order, not the clients'


# -- What is kept until the step


@pytest.mark.parametrize("own", [True, False])
def test_a_users_function_gets_all_records_but_the_arrays_and_flowers_the_metrics(
    make_grid, monkeypatch, own
):
    seen = []

    def average(contents, weighted_by_key):
        seen.extend(sorted(content) for content in contents)
        return MetricRecord({"mine": 1.0})

    def train(msg, context):
        reply = moved(msg)
        reply.content["note"] = ConfigRecord({"text": "hello"})
        return reply

    monkeypatch.setattr(metric_functions, "_average", average)  # what stands for Flower's
    options = {"train_metrics_aggr_fn": average} if own else {}
    strategy = with_waggle(FedAvg)(fraction_evaluate=0.0, **options)
    result = strategy.start(make_grid(train, 2), model(), 1)
    assert result.train_metrics_clientapp[1]["mine"] == 1.0
    assert seen == [["metrics", "note"] if own else ["metrics"]] * 2
