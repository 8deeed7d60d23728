"""A fall and a plateau of losses, by their formula."""

from __future__ import annotations

import math

import pytest
from flwr.app import RecordDict

from fedwaggle.convergence import has_converged, keep_first_loss, read_first_loss
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
    """Window 2 and tolerance 1 %: the mean of the last two against that of the two before.

    The first loss of all was 4, so that each of these has fallen by half.
    """
    found = has_converged(losses, window=2, tolerance=0.01, fall=0.5, first_loss=4.0)
    assert found is converged


@pytest.mark.parametrize(
    ("first_loss", "fall", "converged"),
    [
        (2.0, 0.5, True),  # from 2 to 1 is half
        (1.9, 0.5, False),
        (1.0, 0.5, False),  # flat from the start
        (1.0, 0.0, True),  # no fall is asked for
        (0.9, 0.0, False),  # it rose
        (5.0, 1.0, False),  # not down to 0
        (-1.0, 0.0, True),
        (-0.5, 1.0, True),  # below 0, a fall by the whole of 0.5 leads to -1 ...
        (-0.6, 1.0, False),  # ... and by the whole of 0.6 to -1.2
        (math.nan, 0.5, False),
        (math.inf, 0.5, False),
    ],
)
def test_a_plateau_counts_only_after_a_fall(
    first_loss: float, fall: float, converged: bool
) -> None:
    """A loss of 1 (or -1) that stands still, against what it was at first."""
    level = math.copysign(1.0, first_loss)
    found = has_converged([level] * 4, window=2, tolerance=0.0, fall=fall, first_loss=first_loss)
    assert found is converged


def test_without_a_first_loss_it_is_the_first_of_the_losses() -> None:
    """From 1 down to 0.5 is half, from 0.9 it is not."""
    assert has_converged([1.0, 0.5, 0.5], window=1, tolerance=0.0, fall=0.5)
    assert not has_converged([0.9, 0.5, 0.5], window=1, tolerance=0.0, fall=0.5)


def test_a_node_keeps_its_first_finite_loss() -> None:
    """Rounds of [nan], [nan, 2.5, 1] and [0.5]: none, 2.5 and still 2.5."""
    state, kept = RecordDict(), []
    for losses in ([], [math.nan], [math.nan, 2.5, 1.0], [0.5]):
        kept.append(read_first_loss(state))
        keep_first_loss(state, losses)
    assert [*kept, read_first_loss(state)] == [None, None, None, 2.5, 2.5]


def test_fewer_losses_than_two_windows_never_converged() -> None:
    """A window of 3 needs 6 losses."""
    assert not has_converged([1.0] * 5, window=3, tolerance=0.01, fall=0.0)
    assert has_converged([1.0] * 6, window=3, tolerance=0.01, fall=0.0)
    assert not has_converged([], window=1, tolerance=0.01, fall=0.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_never_converged(bad: float) -> None:
    """One NaN or infinity in the last two windows is enough; before them it is forgotten."""
    for place in range(4):
        losses = [1.0] * 4
        losses[place] = bad
        assert not has_converged(losses, window=2, tolerance=0.01, fall=0.0)
    late = [bad, 1.0, 1.0, 1.0, 1.0]
    assert has_converged(late, window=2, tolerance=0.01, fall=0.5, first_loss=2.0)


def test_huge_losses_do_not_overflow() -> None:
    """Losses near the largest float have a mean, though their sum is none."""
    assert has_converged([1.7e308] * 4, window=2, tolerance=0.01, fall=0.0)
    assert not has_converged(
        [1.7e308, 1.7e308, -1.7e308, -1.7e308], window=2, tolerance=0.01, fall=0.0
    )


def test_the_losses_stay_as_they_were() -> None:
    """A pure function, also for a tuple."""
    losses = (1.0, 0.5, 0.499)
    assert has_converged(losses, window=1, tolerance=0.01, fall=0.5)
    assert losses == (1.0, 0.5, 0.499)


def test_every_bad_argument_is_named_by_its_config_key() -> None:
    """A window of 0, a tolerance of NaN and a fall of 2 are three mistakes."""
    with pytest.raises(ConfigError) as caught:
        has_converged([], window=0, tolerance=math.nan, fall=2)
    assert caught.value.mistakes == (
        "convergence-window: expected a whole number from 1, got 0",
        "convergence-tolerance: expected a number from 0, got nan",
        "convergence-fall: expected a number from 0 up to 1, got 2",
    )
