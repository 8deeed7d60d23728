"""sums += sum_k(weight_k * reply_k), in float64, for several replies in one pass over the sums.

NumPy takes three calls for a chunk of a reply (convert, multiply, add), and after each of them
the threads hand the interpreter on to each other. Torch does all chunks of a thread in one call,
each while it is in the cache. It rounds the product and then the sum, as NumPy does: the bits
are those of ``sums += weight * reply``, which is what small arrays get.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedwaggle.strategy.averaging.chunks import Chunk, chunks_of, on_threads

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["add_weighted", "as_tensor"]

# The input, the product and the sum of a chunk stay in the cache of a core. From the next
# element on, torch would start threads of its own, which wait for each other at every chunk.
_CHUNK_ELEMENTS = 1 << 15
# Few tensors at a time: some hundreds more, and Python's garbage collector looks at everything.
_SEGMENT_ELEMENTS = 1 << 20


def add_weighted(
    sums: Sequence[NDArray[np.float64]],
    replies: Sequence[Sequence[NDArray[Any]]],
    weights: Sequence[float],
) -> None:
    """Add weighted replies to sums, in place and in the order of the replies.

    Parameters
    ----------
    sums : Sequence[ndarray]
        Flat float64 arrays.
    replies : Sequence[Sequence[ndarray]]
        For each reply one flat array of numbers for each sum, of its size. They are only read.
    weights : Sequence[float]
        One for each reply.

    Examples
    --------
    >>> sums = [np.array([1.0, 2.0])]
    >>> add_weighted(sums, [[np.array([1, 0])], [np.array([0, 1])]], [10.0, 20.0])
    >>> sums
    [array([11., 22.])]
    """
    large = [i for i, total in enumerate(sums) if total.size > _CHUNK_ELEMENTS]
    small = sorted(set(range(len(sums))) - set(large))
    for arrays, weight in zip(replies, weights, strict=True):
        for i in small:
            np.add(sums[i], weight * arrays[i].astype(np.float64), out=sums[i])
    if large and replies:
        large_arrays = [[arrays[i] for i in large] for arrays in replies]
        _add_large([sums[i] for i in large], large_arrays, weights)


def _add_large(
    sums: Sequence[NDArray[np.float64]],
    replies: Sequence[Sequence[NDArray[Any]]],
    weights: Sequence[float],
) -> None:
    import torch

    # The arrays are in this machine's memory, whatever device the user has made the default.
    one = torch.ones((), dtype=torch.float64, device="cpu")

    def add(segments: Sequence[Chunk[int]]) -> None:
        for array, start, stop in segments:
            parts = _parts(sums[array][start:stop])
            parts_of_replies = [_parts(arrays[array][start:stop]) for arrays in replies]
            into = [part for part in parts for _ in replies]
            added = [part for alike in zip(*parts_of_replies, strict=True) for part in alike]
            factors = list(weights) * len(parts)
            torch._foreach_addcmul_(into, added, [one] * len(into), factors)

    sizes = [(i, total.size) for i, total in enumerate(sums)]
    on_threads(add, chunks_of(sizes, _SEGMENT_ELEMENTS))


def _parts(array: NDArray[Any]) -> Sequence[Tensor]:
    """Return the chunks of an array, as tensors that share its memory."""
    return as_tensor(array).split(_CHUNK_ELEMENTS)  # type: ignore[no-untyped-call, no-any-return]


def as_tensor(array: NDArray[Any]) -> Tensor:
    """Return a tensor that shares the memory of an array, which may be read-only.

    Parameters
    ----------
    array : ndarray
        Numbers. The tensor is only to be read if the array is.
    """
    import torch

    if array.dtype.itemsize > np.dtype(np.float64).itemsize:  # torch has no longer numbers
        array = array.astype(np.float64)
    # Torch knows nothing read-only, and warns. What it is given here is marked as writable.
    interface = array.__array_interface__
    interface["data"] = (interface["data"][0], False)
    return torch.from_numpy(np.asarray(SimpleNamespace(__array_interface__=interface, of=array)))
