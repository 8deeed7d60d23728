"""Laws of averaging metrics that not every client sends."""

from __future__ import annotations

import pytest
from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
from hypothesis import given
from hypothesis import strategies as st

from fedwaggle.strategy.step.metrics import average_metrics

FINITE = st.floats(allow_nan=False, allow_infinity=False)
WEIGHTS = st.integers(1, 10_000_000)


def test_a_metric_is_averaged_over_those_who_sent_it():
    """(1 * 1 + 3 * 5) / 4 = 4, and the one f1 is its own mean."""
    averaged = average_metrics([({"loss": 1.0}, 1), ({"loss": 5.0, "f1": 0.5}, 3)])
    assert isinstance(averaged, MetricRecord)
    assert dict(averaged) == {"loss": 4.0, "f1": 0.5}


def test_the_mean_of_equal_values_is_that_value():
    """1/5 of 3 and 4/5 of 3 are 3.0000000000000004 in floats."""
    assert average_metrics([({"loss": 3.0}, 1), ({"loss": 3.0}, 4)])["loss"] == 3.0


def test_the_weight_is_left_out_under_whatever_key():
    contents = [({"n": 3, "num-examples": 7}, 3)]
    assert dict(average_metrics(contents, weighted_by_key="n")) == {"num-examples": 7.0}


def test_lists_are_averaged_by_position_if_they_have_one_length():
    contents = [
        ({"losses": [1.0, 2.0], "odd": [1.0], "mixed": 1.0, "none": []}, 1),
        ({"losses": [3, 4], "odd": [1.0, 2.0], "mixed": [1.0], "none": []}, 1),
    ]
    assert dict(average_metrics(contents)) == {"losses": [2.0, 3.0], "none": []}


def test_nobody_has_no_metrics():
    assert dict(average_metrics([])) == {}


@given(st.lists(st.tuples(FINITE, WEIGHTS), min_size=1, max_size=6), st.randoms())
def test_a_mean_lies_between_its_values_whoever_comes_first(values, random):
    contents = [({"loss": value}, weight) for value, weight in values]
    mean = average_metrics(contents)["loss"]
    assert min(v for v, _ in values) <= mean <= max(v for v, _ in values)
    random.shuffle(contents)
    assert average_metrics(contents)["loss"] == mean


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), WEIGHTS), min_size=1, max_size=6),
)
def test_where_all_send_the_same_keys_it_is_flowers_average(values):
    records = [MetricRecord({"loss": v, "list": [v, 1.0], "num-examples": n}) for v, n in values]
    flowers = aggregate_metricrecords([RecordDict({"m": r}) for r in records], "num-examples")
    ours = average_metrics([(record, record["num-examples"]) for record in records])
    assert list(ours) == list(flowers)
    assert ours["loss"] == pytest.approx(flowers["loss"], rel=1e-9, abs=1e-6)
    assert ours["list"] == pytest.approx(flowers["list"], rel=1e-9, abs=1e-6)
