"""Learning-rate schedules: pure functions of the round.

A schedule does not remember anything, so round 40 is right even where a resumed run begins
there. Rounds count from 1.

References
----------
Loshchilov and Hutter, SGDR, arXiv:1608.03983 (cosine); Goyal et al., arXiv:1706.02677 (warm-up).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeAlias

from fedwaggle.config import RunConfig
from fedwaggle.errors import ConfigError

__all__ = [
    "Schedule",
    "constant",
    "cosine",
    "exponential",
    "join",
    "schedule_of",
    "step_decay",
    "warmup",
]

Schedule: TypeAlias = Callable[[int], float]
"""A function from the round to a learning rate."""


def constant(rate: float) -> Schedule:
    """Return the schedule ``rate``.

    Raises
    ------
    ConfigError
        If ``rate`` is not a finite number above 0.

    Examples
    --------
    >>> constant(0.1)(7)
    0.1
    """
    _check(rate=rate)
    return lambda server_round: rate


def step_decay(base: float, *, factor: float, every: int) -> Schedule:
    """Return the schedule ``base * factor ** (round // every)``.

    Parameters
    ----------
    base : float
        The rate of the first rounds.
    factor : float
        By which it is multiplied at each step; above 0 and at most 1.
    every : int
        Rounds from step to step; at least 1.

    Raises
    ------
    ConfigError
        If a value cannot work.

    Examples
    --------
    >>> rate = step_decay(0.01, factor=0.5, every=5)
    >>> [rate(r) for r in (1, 4, 5, 9, 10)]
    [0.01, 0.01, 0.005, 0.005, 0.0025]
    """
    _check(base=base)
    _check_factor(factor)
    _check_rounds(every=every)
    return lambda server_round: base * factor ** (server_round // every)


def exponential(base: float, *, factor: float) -> Schedule:
    """Return the schedule ``base * factor ** (round - 1)``.

    Raises
    ------
    ConfigError
        If ``base`` is not a finite number above 0, or ``factor`` not above 0 and at most 1.

    Examples
    --------
    >>> rate = exponential(8.0, factor=0.5)
    >>> [rate(r) for r in (1, 2, 3)]
    [8.0, 4.0, 2.0]
    """
    _check(base=base)
    _check_factor(factor)
    return lambda server_round: base * factor ** (server_round - 1)


def cosine(base: float, *, num_rounds: int, minimum: float = 0.0) -> Schedule:
    """Return the schedule ``minimum + (base - minimum) * (1 + cos(pi * t)) / 2``.

    Here ``t = (round - 1) / (num_rounds - 1)`` goes from 0 to 1 over the rounds, and stays 1.

    Parameters
    ----------
    base, minimum : float
        The first and the last rate; ``minimum`` is at least 0 and at most ``base``.
    num_rounds : int
        Rounds until ``minimum`` is reached; at least 1.

    Raises
    ------
    ConfigError
        If a value cannot work.

    Examples
    --------
    >>> rate = cosine(1.0, num_rounds=3)
    >>> [round(rate(r), 3) for r in (1, 2, 3, 9)]
    [1.0, 0.5, 0.0, 0.0]
    """
    _check(base=base)
    _check_rounds(num_rounds=num_rounds)
    if not _is_number(minimum) or not 0 <= minimum <= base:
        raise ConfigError([f"minimum: expected a number from 0 to {base}, got {minimum!r}"])

    def rate(server_round: int) -> float:
        t = min(1.0, (server_round - 1) / max(1, num_rounds - 1))
        return minimum + (base - minimum) * (1 + math.cos(math.pi * t)) / 2

    return rate


def warmup(schedule: Schedule, *, rounds: int) -> Schedule:
    """Return ``schedule``, multiplied by ``round / (rounds + 1)`` in the first ``rounds`` rounds.

    Raises
    ------
    ConfigError
        If ``rounds`` is not a whole number from 0.

    Examples
    --------
    >>> rate = warmup(constant(1.0), rounds=3)
    >>> [rate(r) for r in (1, 2, 3, 4)]
    [0.25, 0.5, 0.75, 1.0]
    """
    if type(rounds) is not int or rounds < 0:
        raise ConfigError([f"rounds: expected a whole number from 0, got {rounds!r}"])
    return lambda server_round: schedule(server_round) * min(1.0, server_round / (rounds + 1))


def join(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """Return the schedule that is the next of ``schedules`` from each boundary on.

    The rounds of each part count from 1 again.

    Parameters
    ----------
    schedules : Sequence[Schedule]
        The parts, in their order.
    boundaries : Sequence[int]
        The first round of each part but the first; rising, from 2.

    Raises
    ------
    ConfigError
        If the boundaries do not rise, or are not one fewer than the schedules.

    Examples
    --------
    >>> rate = join([constant(1.0), exponential(8.0, factor=0.5)], [3])
    >>> [rate(r) for r in (1, 2, 3, 4)]
    [1.0, 1.0, 8.0, 4.0]
    """
    starts = [1, *boundaries]
    rising = all(type(b) is int and a < b for a, b in pairwise(starts))
    if len(starts) != len(schedules) or not rising:
        expected = f"{len(schedules) - 1} rising rounds from 2, one fewer than the schedules"
        raise ConfigError([f"boundaries: expected {expected}, got {list(boundaries)!r}"])

    def rate(server_round: int) -> float:
        part = max(0, sum(start <= server_round for start in starts) - 1)
        return schedules[part](server_round - starts[part] + 1)

    return rate


def schedule_of(config: RunConfig) -> Schedule:
    """Return the schedule that the ``lr`` keys of a run config describe.

    Examples
    --------
    >>> rate = schedule_of(RunConfig(lr=0.01, lr_decay=0.5, lr_decay_every=5))
    >>> [rate(r) for r in (1, 5, 10)]
    [0.01, 0.005, 0.0025]
    """
    match config.lr_schedule:
        case "step":
            base = step_decay(config.lr, factor=config.lr_decay, every=config.lr_decay_every)
        case "exponential":
            base = exponential(config.lr, factor=config.lr_decay)
        case "cosine":
            base = cosine(config.lr, num_rounds=config.num_server_rounds, minimum=config.lr_min)
        case "constant":
            base = constant(config.lr)
    return warmup(base, rounds=config.lr_warmup_rounds)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _check(**rates: float) -> None:
    mistakes = [
        f"{name}: expected a finite number above 0, got {value!r}"
        for name, value in rates.items()
        if not _is_number(value) or value <= 0
    ]
    if mistakes:
        raise ConfigError(mistakes)


def _check_factor(factor: float) -> None:
    if not _is_number(factor) or not 0 < factor <= 1:
        raise ConfigError([f"factor: expected a number above 0 and at most 1, got {factor!r}"])


def _check_rounds(**rounds: int) -> None:
    mistakes = [
        f"{name}: expected a whole number from 1, got {value!r}"
        for name, value in rounds.items()
        if type(value) is not int or value < 1
    ]
    if mistakes:
        raise ConfigError(mistakes)
