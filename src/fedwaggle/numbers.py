"""Numbers of a record that are no ordinary ones: they are shown, and break nothing."""

from __future__ import annotations

import math

__all__ = ["MAX_MAGNITUDE", "as_float", "is_ordinary"]

MAX_MAGNITUDE = 1e100
"""Of an ordinary number: sums, axes and bins of ordinary numbers do not overflow."""


def as_float(value: float) -> float:
    """Return a number of an event as a float; JSON has integers beyond all floats.

    Examples
    --------
    >>> as_float(3), as_float(-(10**400))
    (3.0, -inf)
    """
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def is_ordinary(value: float) -> bool:
    """Return whether sums and axes can hold a number.

    Examples
    --------
    >>> is_ordinary(-0.5), is_ordinary(1e308), is_ordinary(math.nan)
    (True, False, False)
    """
    return abs(value) <= MAX_MAGNITUDE
