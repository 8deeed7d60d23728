"""The streaming weighted mean of client arrays: sum_k(n_k * w_k) / sum_k(n_k).

Reply k (arrays w_k, n_k examples) is added to one float64 sum and dropped: memory follows the
model, not the cohort. Sums of floats depend on their order, so the order is that of the client
names, whoever answers first. Who is early waits, in memory up to a limit, then on disk. Complex
numbers are summed as pairs of real ones, and whole numbers of 64 bits as in ``whole``.

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

from fedwaggle.strategy.averaging.arrays import Arrays, ArraySpec, Template, flat_reals, real_dtype
from fedwaggle.strategy.averaging.chunks import Chunk, chunks_of, on_threads
from fedwaggle.strategy.averaging.spill import Spill
from fedwaggle.strategy.averaging.summing import add_weighted
from fedwaggle.strategy.averaging.whole import differences, is_wide, moved

__all__ = ["DEFAULT_FOLD_BUFFER", "Fold", "Mean", "to_dtype"]

logger = logging.getLogger("flwr.fedwaggle.strategy")

DEFAULT_FOLD_BUFFER = 1 << 26
"""Bytes of early replies that wait in memory, unless the caller sets another: 64 MiB."""

_CHUNK_ELEMENTS = 1 << 17  # the sum and the mean of a chunk stay in the cache of a core
_TOGETHER_BYTES = 320 << 20  # replies added in one pass over the sum: it is the larger part
_MOST_TOGETHER = 8
# A power of two changes no digit of a weight, and keeps sums of huge float64 values finite.
_WEIGHT_UNIT = 2.0**-64
_LEAST_EXPONENT = -1100  # below that of any float


@dataclass(frozen=True)
class Mean:
    """The weighted mean of a round's updates.

    Attributes
    ----------
    arrays : dict[str, ndarray]
        In the keys, shapes and dtypes of the model.
    weight : float
        The sum of the weights; an int where all of them are.
    clients : tuple[str, ...]
        Whose updates are in it, in the order of summation.
    """

    arrays: Arrays
    weight: float
    clients: tuple[str, ...]


@dataclass(frozen=True)
class _Reply:
    """A reply that waits: its arrays, or where they lie on disk."""

    client: str
    arrays: Mapping[str, NDArray[Any]] | int
    weight: float = 0.0  # until it is accepted
    scales: Mapping[str, float] | None = None  # by key; None is 1 for all

    @property
    def is_accepted(self) -> bool:
        return self.weight > 0


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
    current : Mapping[str, ndarray] | None (default: None)
        The global model that the clients were sent; needed where a change is scaled.

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
        current: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self._template = template
        self._current = current
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
        self._weight: float = 0  # ints stay ints, and are summed exactly
        self._exponent = _LEAST_EXPONENT  # of the largest weight so far, at most 0
        # Flat float64. Unlike zeros, full takes its memory here, and not when replies wait for it.
        self._sums = {key: np.full(_num_reals(spec), 0.0) for key, spec in template.specs.items()}
        self._bases: dict[str, NDArray[Any]] = {}  # of the wide whole numbers
        self._together = min(_MOST_TOGETHER, max(1, _TOGETHER_BYTES // max(1, template.num_bytes)))

    def add(self, client: str, arrays: Mapping[str, NDArray[Any]], weight: float) -> None:
        """Take a client's update; it is summed when it is this client's turn.

        Parameters
        ----------
        client : str
            One of ``order``, for the first time.
        arrays : Mapping[str, ndarray]
            Its arrays, as the template states. They are kept until they are summed.
        weight : float
            Its weight, finite and above 0.

        Raises
        ------
        ValueError
            If the client is not in the order, or was added, held or skipped before.
        """
        self._settle(client, _Reply(client, arrays, weight))

    def hold(self, client: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take a client's update that waits for :meth:`accept` or :meth:`skip`.

        Raises
        ------
        ValueError
            If the client is not in the order, or was added, held or skipped before.
        """
        self._settle(client, _Reply(client, arrays))

    def accept(self, client: str, weight: float, scales: Mapping[str, float] | None = None) -> None:
        """Let an update that is held into the mean.

        Parameters
        ----------
        client : str
            The client.
        weight : float
            Its weight, above 0.
        scales : Mapping[str, float] | None (default: None)
            By key, what the update's change to the current model is multiplied by; None leaves
            the update as it is.

        Raises
        ------
        ValueError
            If no update of the client is held.
        """
        self._early[client] = replace(self._held(client), weight=weight, scales=scales)
        self._advance()

    def skip(self, client: str) -> None:
        """Let the others pass a client whose update will not come, or is held and not used.

        Raises
        ------
        ValueError
            If the client is not in the order, or was added or skipped before.
        """
        if client not in self._settled:
            self._settle(client, None)
            return
        if not isinstance(self._held(client).arrays, int):
            self._in_memory -= 1
        self._early[client] = None
        self._advance()

    def _held(self, client: str) -> _Reply:
        reply = self._early.get(client)
        if reply is None or reply.is_accepted:
            raise ValueError(f"client {client!r}: expected one that is held, and each only once")
        return reply

    def finish(self) -> Mean | None:
        """Skip all that is missing or held, and return the mean, or None if there is nothing.

        The fold is used up.
        """
        for client in list(self._turns):
            reply = self._early.setdefault(client, None)
            if reply is not None and not reply.is_accepted:
                self.skip(client)
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
        while self._turns and self._is_settled(self._turns[0]):
            reply = self._early.pop(self._turns.popleft())
            if reply is None:
                continue
            if not isinstance(reply.arrays, int):
                self._in_memory -= 1
            if reply.scales is not None:
                self._sum_next()
                self._sum_scaled(reply, reply.scales)
                continue
            self._next.append(reply)
            if len(self._next) == self._together:
                self._sum_next()

    def _is_settled(self, client: str) -> bool:
        if client not in self._early:
            return False
        reply = self._early[client]
        return reply is None or reply.is_accepted

    def _sum_next(self) -> None:
        """Add the next replies to the sum, in their order, with one pass over it."""
        if not self._next:
            return
        unit = self._weight_unit(self._next)
        add_weighted(
            list(self._sums.values()),
            [self._flat_arrays(reply) for reply in self._next],
            [reply.weight * unit for reply in self._next],
        )
        for reply in self._next:  # one by one: how many are summed at a time changes no bit
            self._clients.append(reply.client)
            self._weight += reply.weight
        self._next.clear()

    def _sum_scaled(self, reply: _Reply, scales: Mapping[str, float]) -> None:
        """Add n * (x + s * (w - x)) to the sum, as n * s * w + n * (1 - s) * x."""
        if self._current is None:
            raise ValueError("current: expected the model that the clients were sent, got none")
        unit = self._weight_unit([reply])
        arrays = dict(zip(self._sums, self._flat_arrays(reply), strict=True))
        current = {key: self._summable(key, flat_reals(self._current[key])) for key in self._sums}
        for scale in sorted(set(scales.values())):
            keys = [key for key in self._sums if scales[key] == scale]
            parts = [(arrays, scale), (current, 1.0 - scale)]
            used = [(of, share) for of, share in parts if share]
            add_weighted(
                [self._sums[key] for key in keys],
                [[of[key] for key in keys] for of, _ in used],
                [reply.weight * share * unit for _, share in used],
            )
        self._clients.append(reply.client)
        self._weight += reply.weight

    def _weight_unit(self, replies: Sequence[_Reply]) -> float:
        """Return the unit in which the next weights are summed: a power of two.

        Weights far below 1 would lose their digits in the unit of whole numbers. Where a weight
        is larger than all before, the sums move to its unit, which changes no digit that counts.
        """
        largest = max(reply.weight for reply in replies)
        exponent = max(self._exponent, min(0, math.frexp(largest)[1]))
        if self._clients and exponent > self._exponent:
            for total in self._sums.values():
                np.ldexp(total, self._exponent - exponent, out=total)
        self._exponent = exponent
        return math.ldexp(_WEIGHT_UNIT, -exponent)

    def _divided_sums(self) -> Arrays:
        """Return the sums over the weight, in the shapes and dtypes of the model."""
        weight = self._weight * math.ldexp(_WEIGHT_UNIT, -self._exponent)
        dtypes = {key: real_dtype(spec.dtype) for key, spec in self._template.specs.items()}
        means = {key: np.empty(total.size, dtypes[key]) for key, total in self._sums.items()}

        def divide(chunks: Sequence[Chunk[str]]) -> None:
            for key, start, stop in chunks:
                part = self._sums[key][start:stop]
                with np.errstate(over="ignore"):
                    np.divide(part, weight, out=part)
                if key in self._bases:
                    means[key][start:stop] = moved(self._bases[key][start:stop], part)
                    continue
                # A mean lies between the values. Rounding alone can take it past the largest.
                np.clip(part, *_range_of(dtypes[key]), out=part)
                means[key][start:stop] = to_dtype(part, dtypes[key])

        sizes = [(key, total.size) for key, total in self._sums.items()]
        on_threads(divide, chunks_of(sizes, _CHUNK_ELEMENTS))
        return {
            key: means[key].view(spec.dtype).reshape(spec.shape)
            for key, spec in self._template.specs.items()
        }

    def _flat_arrays(self, reply: _Reply) -> list[NDArray[Any]]:
        """Return a reply's arrays in one dimension each, from memory or from disk."""
        arrays = reply.arrays
        if isinstance(arrays, int):
            arrays = self._spill.read(arrays)
        return [self._summable(key, flat_reals(arrays[key])) for key in self._sums]

    def _summable(self, key: str, flat: NDArray[Any]) -> NDArray[Any]:
        """Return what is summed of an array: for wide whole numbers, the way from the first's."""
        if not is_wide(flat.dtype):
            return flat
        if key not in self._bases:
            self._bases[key] = flat.copy()
        return differences(flat, self._bases[key])

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
        A bool, integer, float or complex dtype.

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
    if dtype.kind in "fc":
        with np.errstate(over="ignore"):  # what is beyond the dtype becomes infinite, and shows
            return values.astype(dtype)
    rounded: NDArray[Any] = np.clip(np.rint(values), *_range_of(dtype))
    return rounded.astype(dtype)


def _num_reals(spec: ArraySpec) -> int:
    """Return how many real numbers an array has; a complex one is two."""
    return math.prod(spec.shape) * (2 if spec.dtype.kind == "c" else 1)


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
