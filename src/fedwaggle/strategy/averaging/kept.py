"""What a round leaves as it is in the global model, since it has no mean.

These are infinities that a model is built with, such as the -inf of an attention mask (and NaN,
in what is not trained), and the extra state of a module. A client that sends such a number back
at its place has sent nothing bad. The sums, the moments of a server optimizer and the distances
between replies would become NaN by it, so all of them see 0 there instead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from fedwaggle.strategy.averaging.arrays import Arrays, Template, decode, encode
from fedwaggle.strategy.averaging.finite import first_non_finite

__all__ = ["Kept"]


class _Holes(NamedTuple):
    """Where an array of the model is not finite, and the array."""

    where: NDArray[np.bool_]
    values: NDArray[Any]


class Kept:
    """The parts of a global model that a round keeps.

    Parameters
    ----------
    arrays : ArrayRecord
        The global model that the clients were sent.
    template : Template
        Its keys, shapes and dtypes.
    trainable : Collection[str]
        Keys of the arrays in which NaN is no value to keep.

    Examples
    --------
    >>> mask = np.array([0, -np.inf], np.float32)
    >>> model = ArrayRecord({"mask": Array(mask)})
    >>> kept = Kept(model, Template.of(model), ())
    >>> kept.from_reply({"mask": mask})
    {'mask': array([0., 0.], dtype=float32)}
    >>> kept.put_back(ArrayRecord({"mask": Array(np.array([0, 0], np.float32))}))["mask"].numpy()
    array([  0., -inf], dtype=float32)
    """

    def __init__(
        self, arrays: ArrayRecord, template: Template, trainable: Collection[str] = ()
    ) -> None:
        self._opaque: dict[str, Array] = {key: arrays[key] for key in template.opaque}
        self._holes = _holes_of(arrays, template, trainable)
        # Where a reply held the same: what every client has replaced has a mean after all.
        self._held = {key: np.zeros_like(holes.where) for key, holes in self._holes.items()}

    @property
    def has_holes(self) -> bool:
        """Whether there is a number in the model that is not finite and that may be kept."""
        return bool(self._holes)

    def from_reply(self, arrays: Arrays) -> Arrays:
        """Return a reply's arrays with 0 where they hold what the model holds, and note where."""
        for key in self._holes.keys() & arrays.keys():
            self._held[key] |= self._same(key, arrays[key])
        return self.blank(arrays)

    def blank(self, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
        """Return arrays with 0 where they hold the very number that the model holds there."""
        blanked = dict(arrays)
        for key, holes in self._holes.items():
            array = blanked.get(key)
            if array is not None and array.shape == holes.where.shape:
                blanked[key] = np.where(self._same(key, array), array.dtype.type(0), array)
        return blanked

    def blank_record(self, record: ArrayRecord) -> ArrayRecord:
        """Return a model with 0 where it holds what the global model holds."""
        changed = self.blank({key: record[key].numpy() for key in self._holes if key in record})
        return ArrayRecord(
            {key: encode(changed[key]) if key in changed else record[key] for key in record}
        )

    def put_back(self, record: ArrayRecord) -> ArrayRecord:
        """Return the model that a step made, with what is kept as it was before."""
        arrays: dict[str, Array] = {key: self._opaque.get(key, record[key]) for key in record}
        for key, holes in self._holes.items():
            if key in arrays and tuple(arrays[key].shape) == holes.where.shape:
                array = arrays[key].numpy()
                arrays[key] = encode(np.where(self._held[key], holes.values, array))
        return ArrayRecord(arrays)

    def _same(self, key: str, array: NDArray[Any]) -> NDArray[np.bool_]:
        """Return where an array holds the number of the model that is not finite."""
        where, values = self._holes[key]
        both_nan = np.isnan(array) & np.isnan(values)
        same: NDArray[np.bool_] = where & ((array == values) | both_nan)
        return same


def _holes_of(
    arrays: ArrayRecord, template: Template, trainable: Collection[str]
) -> dict[str, _Holes]:
    """Return where the arrays of a model are not finite, by key; most models have none."""
    read = {
        key: decode(arrays[key], key, spec)
        for key, spec in template.specs.items()
        if spec.dtype.kind in "fc"
    }
    holes = {}
    while (key := first_non_finite(read)) is not None:
        array = read.pop(key)
        where = np.isinf(array) if key in trainable else ~np.isfinite(array)
        if where.any():
            holes[key] = _Holes(where, array)
    return holes
