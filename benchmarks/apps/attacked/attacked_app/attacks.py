"""What the attacker sends in place of its honest arrays.

Every attack is well-formed: the model's keys, shapes and dtypes, finite numbers, and a count that
the server allows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Attack = Callable[[Array, Array, np.random.Generator], Array]  # new, old, random numbers

ATTACKER = "3"  # a partition id
LARGEST_COUNT = 10_000_000  # the quickstart's max-num-examples
FIRST_ROUND = 3  # of "huge once"


def filled(value: float) -> Attack:
    """Return an attack that sends one number everywhere."""
    return lambda new, old, numbers: np.full_like(new, value)


def scaled(factor: float) -> Attack:
    """Return an attack that multiplies the honest change."""
    return lambda new, old, numbers: (old + factor * (new - old)).astype(new.dtype)


ATTACKS: dict[str, Attack] = {
    "huge once": filled(1e15),
    "huge": filled(1e15),
    "huger": filled(1e30),
    "zeros": filled(0.0),
    "change reversed": scaled(-1.0),
    "weights negated": lambda new, old, numbers: -new,
    "change x 1000": scaled(1000.0),
    "change x -1000": scaled(-1000.0),
    "change x -99": scaled(-99.0),
    "random": lambda new, old, numbers: numbers.standard_normal(new.shape).astype(new.dtype),
}
