"""The mean of whole numbers of 64 bits, of which a float64 has no room for all digits.

What is summed is how far each reply lies from the first one, and the mean lies as far from it
as the differences do on average: first + sum_k(n_k * (w_k - first)) / sum_k(n_k). Where all
replies agree, every difference is 0 and the mean is exact, whatever the digits. Where they are
less than 2**53 apart, no digit of a difference is lost.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["differences", "is_wide", "moved"]

_LARGEST_SIZE = np.nextafter(2.0**64, 0)


def is_wide(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is one of whole numbers of 64 bits."""
    return dtype.kind in "iu" and dtype.itemsize == np.dtype(np.int64).itemsize


def differences(values: NDArray[Any], base: NDArray[Any]) -> NDArray[np.float64]:
    """Return how far whole numbers lie from others, in float64.

    Parameters
    ----------
    values, base : ndarray
        Flat, of one size and one dtype of 64 bits.

    Examples
    --------
    >>> differences(np.array([2**62 + 1]), np.array([2**62]))
    array([1.])
    """
    above, below = values.view(np.uint64), base.view(np.uint64)  # these wrap around, as they must
    forwards, backwards = (above - below).astype(np.float64), (below - above).astype(np.float64)
    return np.where(values >= base, forwards, -backwards)


def moved(base: NDArray[Any], by: NDArray[np.float64]) -> NDArray[Any]:
    """Return whole numbers moved by floats, rounded half to even; none leaves its dtype.

    Parameters
    ----------
    base : ndarray
        Flat, of a dtype of 64 bits.
    by : ndarray
        Flat, of the same size.

    Examples
    --------
    >>> moved(np.array([2**62, 3, 3]), np.array([1.0, 0.5, -0.5]))
    array([4611686018427387905,                   4,                   2])
    """
    whole = np.floor(by)
    rest = by - whole
    limits = np.iinfo(base.dtype)
    begin, up = base.view(np.uint64), whole >= 0
    least, largest = (np.array(end, base.dtype).view(np.uint64) for end in (limits.min, limits.max))
    size = np.minimum(np.abs(whole), _LARGEST_SIZE).astype(np.uint64)
    size = np.minimum(size, np.where(up, largest - begin, begin - least))
    result: NDArray[Any] = np.where(up, begin + size, begin - size).view(base.dtype)
    rounds_up = (rest > 0.5) | ((rest == 0.5) & (result & 1 == 1))
    result += (rounds_up & (result < limits.max)).astype(base.dtype)
    return result
