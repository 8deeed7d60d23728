"""The streaming weighted mean of client arrays: sum_k(n_k * w_k) / sum_k(n_k).

Reply k (arrays w_k, n_k examples) is added to one float64 sum and dropped: memory follows the
model, not the cohort. Sums of floats depend on their order, so the order is that of the client
names, whoever answers first. Who is early waits, in memory up to a limit, then on disk.

Reference: McMahan et al., arXiv:1602.05629, Algorithm 1 (the sum over k).
"""

from __future__ import annotations

import heapq
import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from fedwaggle.strategy.chunks import Chunk, chunks_of, on_threads
from fedwaggle.strategy.npy import Arrays, Template
from fedwaggle.strategy.spill import Spill
from fedwaggle.strategy.summing import add_weighted

__all__ = ["DEFAULT_FOLD_BUFFER", "Fold", "Mean", "to_dtype"]

logger = logging.getLogger("flwr.fedwaggle.strategy")

DEFAULT_FOLD_BUFFER = 1 << 26
"""Bytes of early replies that wait in memory, unless the caller says otherwise: 64 MiB."""

_CHUNK_ELEMENTS = 1 << 17  # the sum and the mean of a chunk stay in the cache of a core
_TOGETHER_BYTES = 320 << 20  # replies added in one pass over the sum: it is the larger part
_MOST_TOGETHER = 8
# A power of two changes no digit of a weight, and keeps sums of huge float64 values finite.
_WEIGHT_UNIT = 2.0**-64


@dataclass(frozen=True)
class Mean:
    """The weighted mean of a round's updates.

    Attributes
    ----------
    arrays : dict[str, ndarray]
        In the keys, shapes and dtypes of the model.
    weight : int
        The sum of the weights.
    clients : tuple[str, ...]
        Whose updates are in it, in the order of summation.
    """

    arrays: Arrays
    weight: int
    clients: tuple[str, ...]


@dataclass(frozen=True)
class _Reply:
    """A reply that waits: its arrays, or where they lie on disk."""

    client: str
    weight: int
    arrays: Mapping[str, NDArray[Any]] | int


class Fold:
    """A weighted mean that takes replies in any order and sums them in one.

    Parameters
    ----------
    order : Sequence[str]
        The clients of the round, in the order of summation.
    template : Template
        Keys, shapes and dtypes of the model; every reply has been checked against it.
    buffer_bytes : int (default: 64 MiB)
        Bytes of early replies that wait in memory. What is above it waits on disk; if the
        disk is full, in memory after all.
    spill_dir : Path | None (default: None)
        Where they wait on disk; None is the system's folder for temporary files.

    Examples
    --------
    1 example at 1.0 and 3 examples at 5.0 give (1 * 1 + 3 * 5) / 4 = 4:

    >>> from flwr.app import Array, ArrayRecord
    >>> model = ArrayRecord({"w": Array(np.zeros(1, np.float32))})
    >>> with Fold(["0", "1", "2"], Template.of(model)) as fold:
    ...     fold.add("2", {"w": np.array([5.0], np.float32)}, 3)
    ...     fold.skip("1")
    ...     fold.add("0", {"w": np.array([1.0], np.float32)}, 1)
    ...     mean = fold.finish()
    >>> mean.arrays["w"], mean.weight, mean.clients
    (array([4.], dtype=float32), 4, ('0', '2'))
    """

    def __init__(
        self,
        order: Sequence[str],
        template: Template,
        *,
        buffer_bytes: int = DEFAULT_FOLD_BUFFER,
        spill_dir: Path | None = None,
    ) -> None:
        self._template = template
        self._buffer_bytes = buffer_bytes
        self._spill = Spill(template, spill_dir)
        self._can_spill = True
        self._turns = deque(order)
        self._place = {client: place for place, client in enumerate(order)}
        self._settled: set[str] = set()
        self._early: dict[str, _Reply | None] = {}  # until it is their turn
        self._in_memory = 0  # how many of them are
        # Where they are in the order, as negatives: the first of a heap is the last in order. Who
        # has had a turn stays in it, behind all who have not.
        self._latest: list[tuple[int, str]] = []
        self._next: list[_Reply] = []  # to be summed in one go
        self._clients: list[str] = []
        self._weight = 0
        # Flat float64. Unlike zeros, full takes its memory here, and not when replies wait for it.
        self._sums = {
            key: np.full(math.prod(spec.shape), 0.0) for key, spec in template.specs.items()
        }
        self._together = min(_MOST_TOGETHER, max(1, _TOGETHER_BYTES // max(1, template.num_bytes)))

    def add(self, client: str, arrays: Mapping[str, NDArray[Any]], weight: int) -> None:
        """Take a client's update; it is summed when it is this client's turn.

        Parameters
        ----------
        client : str
            One of ``order``, for the first time.
        arrays : Mapping[str, ndarray]
            Its arrays, as the template says. They are kept until they are summed.
        weight : int
            Its weight, above 0.

        Raises
        ------
        ValueError
            If the client is not in the order, or was added or skipped before.
        """
        self._settle(client, _Reply(client, weight, arrays))

    def skip(self, client: str) -> None:
        """Let the others pass a client whose update will not come.

        Raises
        ------
        ValueError
            If the client is not in the order, or was added or skipped before.
        """
        self._settle(client, None)

    def finish(self) -> Mean | None:
        """Skip who has not come, and return the mean, or None if nobody has.

        The fold is used up.
        """
        for client in self._turns:
            self._early.setdefault(client, None)
        self._advance()
        self._sum_next()
        if not self._clients:
            return None
        return Mean(self._divided_sums(), self._weight, tuple(self._clients))

    def close(self) -> None:
        """Drop what waits, and give its room back."""
        self._early.clear()
        self._next.clear()
        self._spill.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _settle(self, client: str, reply: _Reply | None) -> None:
        """Note a client's reply, or that there is none, and sum what can be summed."""
        if client not in self._place or client in self._settled:
            raise ValueError(f"client {client!r}: expected one of the order, and each only once")
        self._settled.add(client)
        self._early[client] = reply
        if reply is not None:
            self._in_memory += 1
            heapq.heappush(self._latest, (-self._place[client], client))
        self._advance()
        self._make_room()

    def _advance(self) -> None:
        """Move those whose turn it is on to be summed."""
        while self._turns and self._turns[0] in self._early:
            reply = self._early.pop(self._turns.popleft())
            if reply is not None:
                self._next.append(reply)
                if not isinstance(reply.arrays, int):
                    self._in_memory -= 1
            if len(self._next) == self._together:
                self._sum_next()

    def _sum_next(self) -> None:
        """Add the next replies to the sum, in their order, with one pass over it."""
        add_weighted(
            list(self._sums.values()),
            [self._flat_arrays(reply) for reply in self._next],
            [reply.weight * _WEIGHT_UNIT for reply in self._next],
        )
        self._clients += [reply.client for reply in self._next]
        self._weight += sum(reply.weight for reply in self._next)
        self._next.clear()

    def _divided_sums(self) -> Arrays:
        """Return the sums over the weight, in the shapes and dtypes of the model."""
        weight = self._weight * _WEIGHT_UNIT
        dtypes = {key: spec.dtype for key, spec in self._template.specs.items()}
        means = {key: np.empty(total.size, dtypes[key]) for key, total in self._sums.items()}

        def divide(chunks: Sequence[Chunk[str]]) -> None:
            for key, start, stop in chunks:
                part = self._sums[key][start:stop]
                with np.errstate(over="ignore"):
                    np.divide(part, weight, out=part)
                # A mean lies between the values. Rounding alone can take it past the largest.
                np.clip(part, *_range_of(dtypes[key]), out=part)
                means[key][start:stop] = to_dtype(part, dtypes[key])

        sizes = [(key, total.size) for key, total in self._sums.items()]
        on_threads(divide, chunks_of(sizes, _CHUNK_ELEMENTS))
        return {key: means[key].reshape(spec.shape) for key, spec in self._template.specs.items()}

    def _flat_arrays(self, reply: _Reply) -> list[NDArray[Any]]:
        """Return a reply's arrays in one dimension each, from memory or from disk."""
        arrays = reply.arrays
        if isinstance(arrays, int):
            arrays = self._spill.read(arrays)
        return [arrays[key].reshape(-1) for key in self._sums]

    def _make_room(self) -> None:
        """Move early replies to disk while they take too much memory, the last in order first."""
        while self._can_spill and self._in_memory * self._template.num_bytes > self._buffer_bytes:
            _, client = heapq.heappop(self._latest)
            reply = cast("_Reply", self._early[client])
            try:
                place = self._spill.write(cast("Arrays", reply.arrays))
            except OSError as error:  # a full disk must not cost a round that memory can still hold
                self._can_spill = False
                logger.warning("early replies stay in memory, they cannot wait on disk: %s", error)
            else:
                self._early[client] = replace(reply, arrays=place)
                self._in_memory -= 1


def to_dtype(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return float values in another dtype: whole numbers rounded half to even, none overflown.

    Parameters
    ----------
    values : ndarray
        Finite floats.
    dtype : np.dtype
        A bool, integer or float dtype.

    Returns
    -------
    ndarray
        The same shape, in ``dtype``. It is ``values`` itself where that has the dtype already.

    Examples
    --------
    >>> to_dtype(np.array([0.5, 1.5, 300.0]), np.dtype("uint8"))
    array([  0,   2, 255], dtype=uint8)
    """
    if values.dtype == dtype:
        return values
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # what is beyond the dtype becomes infinite, and shows
            return values.astype(dtype)
    rounded: NDArray[Any] = np.clip(np.rint(values), *_range_of(dtype))
    return rounded.astype(dtype)


def _range_of(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the least and the largest float64 that are numbers of ``dtype``."""
    if dtype.kind == "b":
        return 0.0, 1.0
    if dtype.kind == "f":
        largest = float(min(np.finfo(dtype).max, np.finfo(np.float64).max))
        return -largest, largest
    limits = np.iinfo(dtype)
    largest = float(limits.max)
    if largest > limits.max:  # 2**63 - 1 has no float64, and the next one above does not fit
        largest = math.nextafter(largest, 0.0)
    return float(limits.min), largest
