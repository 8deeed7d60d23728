"""A plateau of losses, told by its formula."""

from __future__ import annotations

import math

import pytest

from fedwaggle.convergence import has_converged
from fedwaggle.errors import ConfigError


@pytest.mark.parametrize(
    ("losses", "converged"),
    [
        ([1.0, 1.0, 0.5, 0.5], False),  # it halved
        ([1.0, 1.0, 0.9, 0.9], False),  # it fell by a tenth
        ([1.0, 1.0, 0.995, 0.986], True),  # by 0.95 %
        ([1.0, 1.0, 1.0, 1.0], True),
        ([0.0, 0.0, 0.0, 0.0], True),
        ([0.9, 1.1, 1.1, 0.9], True),  # noise around a plateau
        ([1.0, 1.0, 2.0, 4.0], False),  # it diverges
        ([9.0, 9.0, 1.0, 1.0, 1.0, 1.0], True),  # only the last windows count
        ([-1.0, -1.0, -2.0, -2.0], False),  # a loss may be below 0
    ],
)
def test_a_plateau_is_a_change_of_at_most_the_tolerance(
    losses: list[float], converged: bool
) -> None:
    """Window 2 and tolerance 1 %: the mean of the last two against that of the two before."""
    assert has_converged(losses, window=2, tolerance=0.01) is converged


def test_fewer_losses_than_two_windows_never_converged() -> None:
    """A window of 3 needs 6 losses."""
    assert not has_converged([1.0] * 5, window=3, tolerance=0.01)
    assert has_converged([1.0] * 6, window=3, tolerance=0.01)
    assert not has_converged([], window=1, tolerance=0.01)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_never_converged(bad: float) -> None:
    """One NaN or infinity in the last two windows is enough; before them it is forgotten."""
    for place in range(4):
        losses = [1.0] * 4
        losses[place] = bad
        assert not has_converged(losses, window=2, tolerance=0.01)
    assert has_converged([bad, 1.0, 1.0, 1.0, 1.0], window=2, tolerance=0.01)


def test_huge_losses_do_not_overflow() -> None:
    """Losses near the largest float have a mean, though their sum is none."""
    assert has_converged([1.7e308] * 4, window=2, tolerance=0.01)
    assert not has_converged([1.7e308, 1.7e308, -1.7e308, -1.7e308], window=2, tolerance=0.01)


def test_the_losses_stay_as_they_were() -> None:
    """A pure function, also for a tuple."""
    losses = (1.0, 0.5, 0.499)
    assert has_converged(losses, window=1, tolerance=0.01)
    assert losses == (1.0, 0.5, 0.499)


def test_every_bad_argument_is_named_by_its_config_key() -> None:
    """A window of 0 and a tolerance of NaN are two mistakes."""
    with pytest.raises(ConfigError) as caught:
        has_converged([], window=0, tolerance=math.nan)
    assert caught.value.mistakes == (
        "convergence-window: expected a whole number from 1, got 0",
        "convergence-tolerance: expected a number from 0, got nan",
    )
