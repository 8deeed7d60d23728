"""The few statistics that a picture of a run needs, as pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Spread", "far_above", "fence", "groups", "spread"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """How values lie: their number, extremes, quartiles and tenths; finite values only."""

    count: int
    low: float
    tenth: float
    q1: float
    median: float
    q3: float
    ninth: float
    high: float


def spread(values: Sequence[float] | Floats) -> Spread | None:
    """Return how values lie, or None if none of them is finite.

    Examples
    --------
    >>> spread([1.0, 2.0, 3.0, 4.0, 5.0, float("nan")]).median
    3.0
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not known.size:
        return None
    cuts = np.quantile(known, [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1])
    return Spread(known.size, *(float(cut) for cut in cuts))


def fence(lies: Spread) -> float:
    """Return the value above which another one stands far above the rest.

    It is the third quartile and three times the distance between the quartiles (Tukey's outer
    fence), and 1.5 times the median at least, so that a tight group has no outliers.
    """
    return max(lies.q3 + 3 * (lies.q3 - lies.q1), 1.5 * abs(lies.median))


def far_above(values: Sequence[float] | Floats) -> list[int]:
    """Return the positions of the values above the :func:`fence`; four are the fewest that tell.

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
    return [int(i) for i in np.flatnonzero(np.isfinite(known) & (known > fence(lies)))]


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
