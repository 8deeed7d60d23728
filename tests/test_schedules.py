"""Schedules: pure functions of the round, refused in words where they cannot work."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from fedwaggle.config import RunConfig
from fedwaggle.errors import ConfigError
from fedwaggle.schedules import (
    Schedule,
    constant,
    cosine,
    exponential,
    join,
    schedule_of,
    step_decay,
    warmup,
)


def rates(schedule: Schedule, *rounds: int) -> list[float]:
    return [schedule(server_round) for server_round in rounds]


def test_a_step_halves_the_rate_in_every_fifth_round() -> None:
    """0.01 until round 4, 0.005 from round 5 to 9, 0.0025 from round 10, 0.000625 in round 20."""
    rate = step_decay(0.01, factor=0.5, every=5)
    assert rates(rate, 1, 4, 5, 9, 10, 20) == [0.01, 0.01, 0.005, 0.005, 0.0025, 0.000625]


def test_a_round_has_its_rate_whatever_was_asked_before() -> None:
    """Round 40, asked first, last or twice, as a resumed run does, is 0.01 / 2 ** 8."""
    rate = step_decay(0.01, factor=0.5, every=5)
    assert rates(rate, 40, 1, 40) == [0.01 / 256, 0.01, 0.01 / 256]


def test_a_cosine_goes_from_its_base_to_its_minimum_and_stays_there() -> None:
    """Over 5 rounds from 1.0 to 0.2: halfway is 0.6, and a quarter is 0.6 + 0.4 cos 45."""
    rate = cosine(1.0, num_rounds=5, minimum=0.2)
    quarter = 0.6 + 0.4 * math.cos(math.pi / 4)
    assert rates(rate, 1, 2, 3, 5, 50) == pytest.approx([1.0, quarter, 0.6, 0.2, 0.2])
    assert cosine(1.0, num_rounds=1)(1) == 1.0


def test_a_warm_up_rises_in_equal_steps_and_then_leaves_the_schedule_alone() -> None:
    """3 rounds of warm-up multiply by 1/4, 2/4, 3/4; 0 rounds change nothing."""
    assert rates(warmup(constant(8.0), rounds=3), 1, 2, 3, 4, 5) == [2.0, 4.0, 6.0, 8.0, 8.0]
    assert rates(warmup(constant(8.0), rounds=0), 1, 2) == [8.0, 8.0]


def test_joined_schedules_each_begin_at_their_own_round_1() -> None:
    """Constant for 2 rounds, halving for 2, then constant again."""
    parts = [constant(1.0), exponential(8.0, factor=0.5), constant(3.0)]
    assert rates(join(parts, [3, 5]), 1, 2, 3, 4, 5, 9) == [1.0, 1.0, 8.0, 4.0, 3.0, 3.0]
    assert join([constant(2.0)], [])(7) == 2.0


@pytest.mark.parametrize(
    ("make", "mistake"),
    [
        (lambda: constant(0.0), "rate: expected a finite number above 0, got 0.0"),
        (lambda: constant(math.inf), "rate: .* got inf"),
        (lambda: constant(True), "rate: .* got True"),
        (lambda: constant("0.1"), "rate: .* got '0.1'"),  # type: ignore[arg-type]
        (lambda: step_decay(0.1, factor=0.0, every=5), "factor: .* got 0.0"),
        (lambda: step_decay(0.1, factor=1.5, every=5), "factor: .* at most 1, got 1.5"),
        (lambda: step_decay(0.1, factor=0.5, every=0), "every: .* whole number from 1, got 0"),
        (lambda: step_decay(0.1, factor=0.5, every=2.0), "every: .* got 2.0"),  # type: ignore[arg-type]
        (lambda: exponential(-1.0, factor=0.5), "base: .* got -1.0"),
        (lambda: cosine(0.1, num_rounds=0), "num_rounds: .* got 0"),
        (lambda: cosine(0.1, num_rounds=5, minimum=0.2), "minimum: .* from 0 to 0.1, got 0.2"),
        (lambda: cosine(0.1, num_rounds=5, minimum=math.nan), "minimum: .* got nan"),
        (lambda: warmup(constant(1.0), rounds=-1), "rounds: .* got -1"),
        (lambda: join([constant(1.0)], [3]), r"boundaries: expected 0 rising .* got \[3\]"),
        (lambda: join([], []), r"boundaries: expected -1|schedules"),
        (lambda: join([constant(1.0)] * 3, [5, 5]), r"boundaries: .* got \[5, 5\]"),
        (lambda: join([constant(1.0)] * 2, [1]), r"boundaries: .* got \[1\]"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_made(
    make: Callable[[], Schedule], mistake: str
) -> None:
    """The error names the argument, what was expected and what came."""
    with pytest.raises(ConfigError, match=mistake):
        make()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (RunConfig(lr=0.4), [0.4, 0.4, 0.2, 0.1]),  # the default: halved in every fifth round
        (RunConfig(lr=0.4, lr_schedule="constant"), [0.4, 0.4, 0.4, 0.4]),
        (RunConfig(lr=0.4, lr_schedule="exponential", lr_decay=0.5), [0.4, 0.2, 0.025, 0.4 / 512]),
        (
            RunConfig(lr=0.4, lr_schedule="cosine", lr_min=0.2, num_server_rounds=9),
            [0.4, 0.3 + 0.1 * math.cos(math.pi / 8), 0.3, 0.2],
        ),
        (RunConfig(lr=0.4, lr_warmup_rounds=1), [0.2, 0.4, 0.2, 0.1]),
    ],
)
def test_the_lr_keys_of_a_run_config_make_a_schedule(
    config: RunConfig, expected: list[float]
) -> None:
    """Each ``lr-schedule``, in rounds 1, 2, 5 and 10."""
    assert rates(schedule_of(config), 1, 2, 5, 10) == pytest.approx(expected)
