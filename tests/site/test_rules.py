"""Rules are applied to every number they are for, and what they cannot be kept for stays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedwaggle.site.policy import FieldRule, MetadataRules
from fedwaggle.site.rules import sift_metadata, sift_metrics

HIDE, WHOLE = FieldRule(allow=False), FieldRule(round=0)


@pytest.mark.parametrize(
    ("values", "fields", "left", "withheld", "changed"),
    [
        ({"a": 1.26, "b": 2}, {"a": WHOLE}, {"a": 1.0, "b": 2}, (), ("a",)),
        ({"a": 1.26, "b": 2}, {"a": HIDE}, {"b": 2}, ("a",), ()),
        ({"a": [1.6, 2.4]}, {"a": WHOLE}, {"a": [2.0, 2.0]}, (), ("a",)),
        ({"a": {"x": 1.6, "y": None}}, {"a": WHOLE}, {"a": {"x": 2.0, "y": None}}, (), ("a",)),
        ({"a": {"x": 1, "y": 2}}, {"a.x": HIDE}, {"a": {"y": 2}}, ("a.x",), ()),
        ({"a": {"x": 1, "y": 2.6}}, {"a": WHOLE, "a.x": HIDE}, {"a": {"y": 3}}, ("a.x",), ("a.y",)),
        ({"a": 5234}, {"a": FieldRule(round=-2)}, {"a": 5200}, (), ("a",)),
        ({"a": 7}, {"a": FieldRule(clip=(0.5, 4.5))}, {"a": 4}, (), ("a",)),
        ({"a": float("inf")}, {"a": FieldRule(clip=(0, 9))}, {"a": 9}, (), ("a",)),
        ({"a": True}, {"a": WHOLE}, {"a": True}, (), ("a",)),
        # Text may hold a number that no rule sees.
        ({"a": "1.26", "b": {"c": "x"}}, {"a": WHOLE, "b": WHOLE}, {}, ("a", "b"), ()),
    ],
)  # fmt: skip
def test_rules_with_all_else_allowed(
    values: dict[str, Any],
    fields: dict[str, FieldRule],
    left: dict[str, Any],
    withheld: tuple[str, ...],
    changed: tuple[str, ...],
) -> None:
    sifted = sift_metadata(values, MetadataRules(fields=fields))
    assert (sifted.values, sifted.withheld, sifted.changed) == (left, withheld, changed)


def test_with_all_else_denied_only_what_is_named_leaves() -> None:
    rules = MetadataRules(default="deny", fields={"a": FieldRule(), "b.x": FieldRule()})
    sifted = sift_metadata({"a": 1, "b": {"x": 2, "y": 3}, "c": {"z": 4}}, rules)
    assert sifted.values == {"a": 1, "b": {"x": 2}}
    assert sifted.withheld == ("b.y", "c")


def test_metrics_without_a_rule_leave() -> None:
    sifted = sift_metrics({"loss": 0.126, "auc": 0.9}, {"loss": FieldRule(round=1), "auc": HIDE})
    assert (sifted.values, sifted.withheld, sifted.changed) == ({"loss": 0.1}, ("auc",), ("loss",))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=8,
)


def numbers_in(value: object) -> list[float]:
    if isinstance(value, dict):
        return [number for each in value.values() for number in numbers_in(each)]
    if isinstance(value, list):
        return [number for each in value for number in numbers_in(each)]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return [value] if is_number else []  # type: ignore[list-item]


@given(st.dictionaries(st.sampled_from("abc"), values))
def test_no_number_under_a_clip_leaves_its_range(metadata: dict[str, Any]) -> None:
    rules = MetadataRules(fields={"a": FieldRule(clip=(-1, 1)), "b": HIDE})
    left = sift_metadata(metadata, rules).values
    assert "b" not in left
    assert all(-1 <= number <= 1 for number in numbers_in(left.get("a")))
    assert left.get("c") == metadata.get("c")


@given(st.dictionaries(st.sampled_from("abc"), values))
def test_under_a_policy_that_denies_all_nothing_leaves(metadata: dict[str, Any]) -> None:
    sifted = sift_metadata(metadata, MetadataRules(default="deny"))
    assert sifted.values == {}
    assert set(sifted.withheld) == set(metadata)
