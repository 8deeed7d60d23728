"""Cosines of changes to their mean: exact for small models, an estimate for large ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from fedwaggle.strategy.bounds.drift import Drift

Changes = Mapping[str, Sequence[float]]


def cosines(
    changes: Mapping[str, NDArray[np.float64]],
    weights: Mapping[str, float] | None = None,
    order: Sequence[str] = (),
) -> dict[str, float]:
    size = len(next(iter(changes.values())))
    start = np.full(size, 10.0)
    drift = Drift(["w"], {"w": start}, sorted(changes))
    for client in order or list(changes):
        drift.hold(client, {"w": start + changes[client]})
        drift.accept(client, (weights or {}).get(client, 1.0))
    return drift.cosines()


def test_cosines_by_hand() -> None:
    """The mean of (1, 0), (0, 1) and (-1, 0), weighted 2, 1 and 1, is (0.25, 0.25)."""
    changes = {"a": np.array([1.0, 0]), "b": np.array([0, 1.0]), "c": np.array([-1.0, 0])}
    assert cosines(changes, {"a": 2, "b": 1, "c": 1}) == {"a": 0.7071, "b": 0.7071, "c": -0.7071}


def test_the_order_of_arrival_does_not_matter() -> None:
    changes = {name: np.random.default_rng(i).normal(size=50) for i, name in enumerate("abcd")}
    assert cosines(changes) == cosines(changes, order="dbca")


def test_one_change_or_none_has_no_cosine_and_neither_has_one_of_length_0() -> None:
    one, none = np.array([1.0, 2.0]), np.zeros(2)
    assert cosines({"a": one}) == {}
    assert cosines({"a": one, "b": none}) == {"a": 1.0}
    assert cosines({"a": np.array([1e300, 0]), "b": one}) == {}


def test_what_is_not_used_does_not_count() -> None:
    drift = Drift(["w"], {"w": np.zeros(2)}, ["a", "b", "c"])
    for client, change in (("a", [1.0, 0]), ("b", [0, 1.0]), ("c", [5.0, 5.0])):
        drift.hold(client, {"w": np.array(change)})
    drift.skip("c")
    drift.accept("a", 1.0)
    drift.accept("b", 1.0)
    assert drift.cosines() == {"a": 0.7071, "b": 0.7071}


@pytest.mark.parametrize("size", [5_000, 300_000])
def test_of_a_large_model_they_are_an_estimate(size: int) -> None:
    """Five changes with a common part: the standard error is about 0.01."""
    rng = np.random.default_rng(3)
    common = rng.normal(size=size)
    changes = {name: common + rng.normal(size=size) for name in "abcde"}
    mean = sum(changes.values())
    for name, estimate in cosines(changes).items():
        change = changes[name]
        exact = change @ mean / np.linalg.norm(change) / np.linalg.norm(mean)
        assert estimate == pytest.approx(exact, abs=0.04)


def test_arrays_of_any_shape_and_the_first_thousand_clients() -> None:
    current = {"a": np.zeros((2, 3), "float32"), "b": np.zeros(0), "c": np.zeros(1, "complex64")}
    names = [str(number) for number in range(1001)]
    drift = Drift(current, current, names)
    for name in names:
        drift.hold(name, {key: array + 1 for key, array in current.items()})
        drift.accept(name, 1.0)
    assert drift.cosines() == dict.fromkeys(names[:1000], 1.0)
