"""Work on large arrays, a cache-sized chunk at a time, on a few threads.

Each element is computed by itself, so neither the chunks nor the threads change one bit of a
result. NumPy lets go of the interpreter inside its loops, so that threads do run side by side.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Chunk", "chunks_of", "on_threads"]

K = TypeVar("K")
R = TypeVar("R")

_FEWEST_ELEMENTS = 1 << 20  # below that, starting threads takes longer than the work
_MOST_THREADS = 8  # memory is the limit long before


class Chunk(NamedTuple, Generic[K]):
    """A part of a flat array.

    Attributes
    ----------
    key : K
        Key of the array.
    start, stop : int
        Its elements.
    """

    key: K
    start: int
    stop: int


def chunks_of(sizes: Iterable[tuple[K, int]], chunk_elements: int) -> list[Chunk[K]]:
    """Cut arrays into chunks.

    Parameters
    ----------
    sizes : Iterable[tuple[K, int]]
        Key and number of elements of each array.
    chunk_elements : int
        The most elements of a chunk.

    Examples
    --------
    >>> chunks_of([("w", 5), ("b", 1)], 3)
    [Chunk(key='w', start=0, stop=3), Chunk(key='w', start=3, stop=5), Chunk(key='b', start=0, stop=1)]
    """  # noqa: E501  # a line is a line
    return [
        Chunk(key, start, min(start + chunk_elements, size))
        for key, size in sizes
        for start in range(0, size, chunk_elements)
    ]


def on_threads(work: Callable[[Sequence[Chunk[K]]], R], chunks: Sequence[Chunk[K]]) -> list[R]:
    """Let threads share the chunks, if there is enough to do, and return what each came to.

    Examples
    --------
    >>> on_threads(len, chunks_of([("w", 5)], 3))
    [2]
    """
    if sum(chunk.stop - chunk.start for chunk in chunks) < _FEWEST_ELEMENTS:
        return [work(chunks)]
    threads = min(_num_cores(), _MOST_THREADS)
    shares = [chunks[i::threads] for i in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        others = [pool.submit(work, share) for share in shares[1:]]
        return [work(shares[0]), *(other.result() for other in others)]


def _num_cores() -> int:
    """Return the cores that this process may use; some systems only know how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
