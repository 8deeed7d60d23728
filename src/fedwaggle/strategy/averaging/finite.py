"""Looking for NaN and infinities in large arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedwaggle.strategy.averaging.arrays import flat_reals
from fedwaggle.strategy.averaging.chunks import Chunk, chunks_of, on_threads

__all__ = ["first_non_finite"]

_CHUNK_ELEMENTS = 1 << 20
_BLAS_BYTES = 4  # it has no routines for half precision


def first_non_finite(arrays: Mapping[str, NDArray[Any]]) -> str | None:
    """Return the key of the first array with NaN or an infinity, or None."""
    flat = {key: flat_reals(array) for key, array in arrays.items() if array.dtype.kind in "fc"}
    sizes = [(key, array.size) for key, array in flat.items()]

    def bad_keys(chunks: Sequence[Chunk[str]]) -> set[str]:
        with np.errstate(over="ignore", invalid="ignore"):
            return {key for key, start, stop in chunks if not _all_finite(flat[key][start:stop])}

    shares = on_threads(bad_keys, chunks_of(sizes, _CHUNK_ELEMENTS))
    bad = set().union(*shares)
    return next((key for key in arrays if key in bad), None)


def _all_finite(values: NDArray[Any]) -> bool:
    """Whether there is neither NaN nor an infinity in a flat array of floats."""
    # BLAS needs one pass where the extremes need two, and passes NaN and infinities on. A square
    # that is too large for the type is one, too: only then a closer look is needed.
    if values.dtype.itemsize >= _BLAS_BYTES and math.isfinite(np.dot(values, values)):
        return True
    extremes = np.maximum.reduce(values), np.minimum.reduce(values)
    return all(map(math.isfinite, extremes))
