"""Laws of the bounds on a reply that is out of line with the others of its round."""

from __future__ import annotations

import math

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from hypothesis import example, given
from hypothesis import strategies as st

from fedwaggle.strategy.averaging.arrays import Template
from fedwaggle.strategy.bounds.changes import Ruler
from fedwaggle.strategy.bounds.outliers import Bounds, OutlierRule, Sizes, Terms, bounded_weights
from fedwaggle.strategy.codes import Code, Refused

norms = st.floats(0, 1e30)
weights = st.integers(1, 10_000_000)
rounds = st.lists(st.tuples(norms, norms, weights), min_size=1, max_size=12)


RULE = OutlierRule()


def judge(replies, rule=RULE, order=None, cohort=None):
    """Return what becomes of each reply, whose number in the list is its name."""
    bounds, outcome = Bounds(rule, cohort or len(replies)), {}
    for number in order or range(len(replies)):
        *sizes, weight = replies[number]
        bounds.add(str(number), Sizes(tuple(sizes), weight))
        outcome |= bounds.settled()
    return outcome | bounds.rest()


def plain(outcome):
    """Return an outcome as values that can be compared."""
    return {name: getattr(one, "reason", one) for name, one in outcome.items()}


def scales(*trained, rule=RULE):
    """Return the scale of each change, by its norm alone; None if it is not used."""
    outcome = judge([(norm, 10) for norm in trained], rule)
    return [
        None if isinstance(one, Refused) else one.scales[0]
        for one in (outcome[str(number)] for number in range(len(trained)))
    ]


def test_a_change_more_than_twice_as_long_as_the_second_longest_is_shortened_to_it():
    """Of 1, 2, 3 and 8, one may be hostile: the reference is 3, and 8 is shortened to 3."""
    assert scales(1.0, 2.0, 3.0, 8.0) == [1, 1, 1, 0.375]
    assert scales(1.0, 2.0, 3.0, 6.0) == [1, 1, 1, 1]


def test_a_change_a_hundred_times_as_long_is_not_used():
    assert scales(1.0, 1.0, 100.0) == [1, 1, 0.01]
    assert scales(1.0, 1.0, 100.1) == [1, 1, None]
    assert scales(1.0, 1.0, math.inf) == [1, 1, None]


def test_of_twenty_replies_two_may_be_hostile():
    assert scales(*[1.0] * 18, 50.0, 80.0) == [*[1] * 18, 0.02, 0.0125]


def test_of_two_replies_one_is_shortened_if_it_is_far_out_and_none_is_quarantined():
    """Two sites of unequal size are both honest, for all that can be seen."""
    assert scales(1.0, 100.0) == [1, 1]
    assert bounded_weights([10, 1000], RULE) == [10, 1000]
    assert bounded_weights([10, 1001], RULE) == [10, 10]
    assert scales(1.0, 1e30) == [1, pytest.approx(1e-30)]
    assert scales(1.0, math.inf) == [1, 0]


def test_a_lone_reply_has_nothing_to_be_compared_with():
    assert scales(1e30) == [1]


def test_short_replies_do_not_drag_the_others_down():
    """A client that sends no change cannot get those that trained shortened."""
    assert scales(0.0, 2.0, 2.1, 2.2) == [1, 1, 1, 1]


def test_where_the_others_leave_an_array_alone_one_client_cannot_change_it():
    outcome = judge([(1.0, 0.0, 10), (1.0, 0.0, 10), (1.0, 1e15, 10)])
    assert outcome["2"] == Terms(10, (1.0, 0.0))


def test_a_weight_more_than_twice_the_second_largest_counts_as_the_second_largest():
    assert bounded_weights([600, 600, 1200, 590], RULE) == [600, 600, 1200, 590]
    assert bounded_weights([600, 600, 10_000_000, 590], RULE) == [600, 600, 600, 590]
    assert bounded_weights([0.5, 0.25, 9.0], RULE) == [0.5, 0.25, 0.5]
    assert bounded_weights([7], OutlierRule()) == [7]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (OutlierRule(share=0), Terms(90, (1.0, 1.0))),
        (OutlierRule(clip_norm=0, quarantine=0), Terms(10, (1.0, 1.0))),
        (OutlierRule(clip_weight=0, quarantine=0), Terms(90, (0.001, 1.0))),
        (OutlierRule(quarantine=0), Terms(10, (0.001, 1.0))),
    ],
)
def test_zero_switches_each_bound_off(rule, expected):
    replies = [(1.0, 1.0, 10), (1.0, 1.0, 10), (1000.0, 1.0, 90)]
    assert judge(replies, rule)["2"] == expected


@pytest.mark.parametrize("off", [{"clip_norm": 0.0}, {"clip_weight": 0.0}, {"quarantine": 0.0}])
def test_a_bound_that_is_off_is_off_where_nobody_changes_an_array(off):
    rule = OutlierRule(**off)
    assert judge([(1.0, 0.0, 10)] * 3, rule) == {str(n): Terms(10, (1.0, 1.0)) for n in range(3)}
    assert judge([(0.0, 10)] * 3, rule) == {str(n): Terms(10, (1.0,)) for n in range(3)}


def test_the_reason_of_a_quarantine_has_the_figures():
    outcome = judge([(1.0, 10), (2.0, 10), (500.0, 10)])["2"]
    assert isinstance(outcome, Refused)
    assert outcome.code == Code.OUT_OF_LINE
    assert "norm 500" in outcome.reason
    assert "outlier-quarantine = 100" in outcome.reason
    assert "is 2" in outcome.reason


@given(replies=rounds, data=st.data())
def test_the_outcome_does_not_depend_on_the_order_of_arrival(replies, data):
    order = data.draw(st.permutations(range(len(replies))))
    absent = data.draw(st.integers(0, 5))  # who was asked, and does not answer
    expected = judge(replies)
    assert plain(judge(replies, order=order, cohort=len(replies) + absent)) == plain(expected)


@given(replies=rounds)
@example(replies=[(1.0, 0.0, 1), (3.0, 0.0, 1)])
def test_nothing_is_used_beyond_its_bounds(replies):
    if len(replies) == 1:
        return
    untouched = RULE.clip_norm if len(replies) > 2 else RULE.quarantine
    second_longest = sorted(reply[0] for reply in replies)[-2]
    for name, terms in judge(replies).items():
        norm, _, weight = replies[int(name)]
        if isinstance(terms, Terms):
            assert norm * terms.scales[0] <= untouched * second_longest * (1 + 1e-9)
            assert terms.weight <= weight


def ruler(**arrays) -> Ruler:
    current = {key: np.asarray(value) for key, value in arrays.items()}
    record = ArrayRecord({key: Array(value) for key, value in current.items()})
    return Ruler(Template.of(record), current)


def test_norms_are_taken_by_kind_of_array():
    """What is trained, what is measured and what is counted are not of one scale."""
    model = ruler(
        w=np.zeros(2, np.float32),
        b=np.ones(1, np.float32),
        running_var=np.ones(2),
        steps=np.array(5),
    )
    assert model.groups == (("w", "b"), ("running_var",), ("steps",))
    sent = {
        "w": np.array([3.0, 0.0], np.float32),
        "b": np.array([5.0], np.float32),
        "running_var": np.array([1.0, 8.0]),
        "steps": np.array(15),
    }
    assert model.norms(sent) == (5.0, 7.0, 10.0)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "bool"])
@pytest.mark.parametrize("size", [1, 1023, 1024, 5000])
def test_a_norm_is_numpys(dtype, size):
    rng = np.random.default_rng(size)
    old, new = (rng.normal(size=(2, size)) * 3).astype(dtype)
    expected = np.linalg.norm(new.astype(np.float64) - old.astype(np.float64))
    assert sum(ruler(w=old).norms({"w": new})) == pytest.approx(expected, rel=1e-5)


def test_a_norm_has_the_same_bits_on_one_thread_and_on_many(monkeypatch):
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(2, 3_000_001)).astype(np.float32)
    many = ruler(w=old).norms({"w": new})
    monkeypatch.setattr("fedwaggle.strategy.averaging.chunks._num_cores", lambda: 1)
    assert ruler(w=old).norms({"w": new}) == many


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_norm_of_what_has_none_is_not_finite(value):
    old = np.zeros(3000, np.float32)
    new = old.copy()
    new[7] = value
    assert not math.isfinite(ruler(w=old).norms({"w": new})[0])
