"""How far a client's arrays are from the global model: the L2 norm of the change, by group.

A model has arrays of three kinds, whose changes are not of one scale: what is trained, the
statistics that layers measure (a running variance may be large), and counters (they grow with a
client's number of batches). One norm over all of them would be that of the largest kind alone.

Squares are summed within rows of fixed length, each by one thread, and the sums of the rows are
added exactly: the norm has the same bits whatever the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedwaggle.strategy.averaging.arrays import Arrays, Template, flat_reals, real_dtype
from fedwaggle.strategy.averaging.chunks import Chunk, chunks_of, on_threads
from fedwaggle.strategy.averaging.fold import to_dtype
from fedwaggle.strategy.averaging.summing import as_tensor
from fedwaggle.strategy.bounds.outliers import Terms

__all__ = ["Ruler", "groups_of", "scales_by_key", "shortened"]

_CHUNK_ELEMENTS = 1 << 20
_ROW_ELEMENTS = 1 << 10  # squares of float32 are summed as float32 within a row, and not beyond
_TORCH_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def groups_of(template: Template) -> tuple[tuple[str, ...], ...]:
    """Return the keys of what is trained, of the other floats, and of whole numbers.

    Examples
    --------
    >>> from flwr.app import Array, ArrayRecord
    >>> arrays = {"w": np.zeros(2), "running_mean": np.zeros(2), "steps": np.array(0)}
    >>> model = ArrayRecord({key: Array(value) for key, value in arrays.items()})
    >>> groups_of(Template.of(model))
    (('w',), ('running_mean',), ('steps',))
    """
    trained = [key for key in template.specs if key in template.trainable]
    others = [key for key in template.specs if key not in template.trainable]
    whole = [key for key in others if template.specs[key].dtype.kind in "biu"]
    measured = [key for key in others if key not in whole]
    return tuple(trained), tuple(measured), tuple(whole)


class Ruler:
    """Measures changes to a global model.

    Parameters
    ----------
    template : Template
        The keys, shapes and dtypes of the model's arrays that have a mean.
    current : dict[str, ndarray]
        These arrays of the global model that the clients were sent; they are read, not copied.

    Attributes
    ----------
    current : dict[str, ndarray]
        The same.
    groups : tuple[tuple[str, ...], ...]
        Keys of the arrays that are measured together; the first group is what is trained.
    """

    def __init__(self, template: Template, current: Arrays) -> None:
        self.current = current
        self.groups = groups_of(template)

    def norms(self, arrays: Mapping[str, NDArray[Any]]) -> tuple[float, ...]:
        """Return the L2 norm of the change from the model to ``arrays``, for each group.

        Parameters
        ----------
        arrays : Mapping[str, ndarray]
            A client's arrays, in the shapes and dtypes of the model.

        Returns
        -------
        tuple[float, ...]
            Not finite if the arrays are not, or if squares of their change are too large for
            the dtype.

        Examples
        --------
        >>> from flwr.app import Array, ArrayRecord
        >>> w = np.array([1.0, 1.0])
        >>> template = Template.of(ArrayRecord({"w": Array(w)}))
        >>> Ruler(template, {"w": w}).norms({"w": np.array([4.0, 5.0])})
        (5.0, 0.0, 0.0)
        """
        old = {key: flat_reals(array) for key, array in self.current.items()}
        new = {key: flat_reals(arrays[key]) for key in old}
        sizes = [(key, array.size) for key, array in old.items()]

        def squares(chunks: Sequence[Chunk[str]]) -> list[tuple[str, float]]:
            return [
                (key, _squared_distance(new[key][start:stop], old[key][start:stop]))
                for key, start, stop in chunks
            ]

        shares = on_threads(squares, chunks_of(sizes, _CHUNK_ELEMENTS))
        by_key: dict[str, list[float]] = {key: [] for key, _ in sizes}
        for key, square in (pair for share in shares for pair in share):
            by_key[key].append(square)
        return tuple(_root([s for key in group for s in by_key[key]]) for group in self.groups)


def _root(squares: Sequence[float]) -> float:
    try:
        return math.sqrt(math.fsum(squares))
    except OverflowError:  # each is finite, the sum is not
        return math.inf


def _squared_distance(new: NDArray[Any], old: NDArray[Any]) -> float:
    """Return the sum of the squares of ``new - old``, two flat arrays of one dtype."""
    whole_rows = new.size - new.size % _ROW_ELEMENTS if new.dtype in _TORCH_DTYPES else 0
    total = _of_rows(new[:whole_rows], old[:whole_rows]) if whole_rows else 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        rest = np.subtract(new[whole_rows:], old[whole_rows:], dtype=np.float64)
        return total + float(np.einsum("i,i", rest, rest))


def _of_rows(new: NDArray[Any], old: NDArray[Any]) -> float:
    import torch

    # The one operation of torch that subtracts, squares and sums in one pass over both.
    distances = torch.cdist(
        as_tensor(new).view(-1, 1, _ROW_ELEMENTS),
        as_tensor(old).view(-1, 1, _ROW_ELEMENTS),
        compute_mode="donot_use_mm_for_euclid_dist",
    )
    rows: NDArray[np.float64] = distances.view(-1).numpy().astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.add.reduce(rows * rows))


def shortened(arrays: Arrays, ruler: Ruler, terms: Terms) -> Arrays:
    """Return x + s * (w - x) for each array w of a reply, rounded to the model's dtypes."""
    scales = scales_by_key(ruler.groups, terms)

    def shorten(key: str) -> NDArray[Any]:
        new, old, scale = arrays[key], ruler.current[key], scales[key]
        if scale == 1:
            return new
        if scale == 0:  # a change that is too long to be computed with
            return old
        parts = [flat_reals(array).astype(np.float64) for array in (new, old)]
        mean = to_dtype(scale * parts[0] + (1 - scale) * parts[1], real_dtype(new.dtype))
        return mean.view(new.dtype).reshape(new.shape)

    return {key: shorten(key) for key in arrays}


def scales_by_key(groups: Sequence[Sequence[str]], terms: Terms) -> dict[str, float]:
    """Return the scale of each array's change."""
    pairs = zip(groups, terms.scales, strict=True)
    return {key: scale for group, scale in pairs for key in group}
