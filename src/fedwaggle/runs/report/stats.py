"""The few statistics that a picture of a run needs, as pure functions.

Much of it is of numbers that clients chose. So there are statistics of ordinary numbers only:
sums, means and the axes of all others may overflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedwaggle.numbers import MAX_MAGNITUDE

__all__ = ["Spread", "far_above", "groups", "spread"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """How values lie: their number, extremes, quartiles and tenths; ordinary values only."""

    count: int
    low: float
    p10: float
    q1: float
    median: float
    q3: float
    p90: float
    high: float


def spread(values: Sequence[float] | Floats) -> Spread | None:
    """Return how values lie, or None if none of them is ordinary.

    Examples
    --------
    >>> spread([1.0, 2.0, 3.0, 4.0, 5.0, float("nan")]).median
    3.0
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[np.abs(known) <= MAX_MAGNITUDE]  # NaN is not
    if not known.size:
        return None
    cuts = np.quantile(known, [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1])
    return Spread(known.size, *(float(cut) for cut in cuts))


def far_above(values: Sequence[float] | Floats) -> list[int]:
    """Return the positions of the values that stand far above the rest.

    That is: above the third quartile by three times the distance between the quartiles (Tukey's
    outer fence), and above 1.5 times the median, so that a tight group has no outliers. Fewer
    than four ordinary values are too few to tell.

    Examples
    --------
    >>> far_above([1.0, 1.1, 0.9, 1.0, 9.0])
    [4]
    >>> far_above([1.0, 1.0, 1.0, 1.0, 1.2])
    []
    """
    known = np.asarray(values, dtype=np.float64)
    lies = spread(known)
    if lies is None or lies.count < 4:
        return []
    fence = max(lies.q3 + 3 * (lies.q3 - lies.q1), 1.5 * abs(lies.median))
    return [int(i) for i in np.flatnonzero(np.isfinite(known) & (known > fence))]


def groups(keys: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """Return each key, from the least, with the positions where it stands.

    Examples
    --------
    >>> [(key, where.tolist()) for key, where in groups(np.array([2, 1, 2]))]
    [(1, [1]), (2, [0, 2])]
    """
    order = np.argsort(keys, kind="stable").astype(np.int64)
    found, starts = np.unique(keys[order], return_index=True)
    parts = np.split(order, starts[1:])
    return [(int(key), part) for key, part in zip(found, parts, strict=True)] if keys.size else []
