"""What runs on stock Flower runs behind the mixin, too: weights, metrics, dtypes, odd models."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedwaggle.runs import Run, load
from fedwaggle.runs.events import read_events
from fedwaggle.strategy import Waggle

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
