"""What a node works on: its share of what the app's ``load_data`` returns.

In a simulation every node calls the same ``load_data``, and this library divides the result
among them. A real node returns its own data and keeps all of it; and so does the server, which
tests on a whole split.

``load_data`` is called once in a process for each split, and its result is divided once for each
way of dividing; after that a client's examples cost one look-up of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedwaggle.config import shared_config
from fedwaggle.data.conversion import Split, to_split
from fedwaggle.data.examples import Examples
from fedwaggle.data.partitioning.rows import partition_rows
from fedwaggle.data.partitioning.spec import BY_SIZE, PartitionSpec, check_partition_id
from fedwaggle.errors import DatasetError

if TYPE_CHECKING:
    from flwr.app import Context

__all__ = ["LoadData", "count_labels", "count_own_labels", "load_examples"]

LoadData: TypeAlias = "Callable[[str, Context], Any]"

# One set has two splits; a process seldom works on more than one set at a time.
_SPLITS_KEPT = 4
_DIVISIONS_KEPT = 8

_PLACE = ("partition-id", "num-partitions")  # which share of a simulated node is, not of what


def load_examples(load_data: LoadData, split: str, context: Context) -> Examples:
    """Load what this node works on.

    A node whose ``context.node_config`` has ``partition-id`` and ``num-partitions``, as simulated
    nodes have, gets its share, by ``partitioner`` and the keys beside it in the run config. Every
    other node, and the server, gets all of it.

    The test split is divided by the same partitioner and seed. That gives a client about the
    mix of labels that it trains on: exactly its classes with ``classes``, nearly its mix with
    ``dirichlet``, unless a draw had to be repeated because it left a client without examples.

    Parameters
    ----------
    load_data : Callable[[str, Context], Any]
        Called with ``split`` and ``context``; returns a pair ``(x, y)`` of arrays or tensors, a
        ``datasets.Dataset``, a ``pandas.DataFrame`` or a torch ``Dataset``. A result is kept, so
        it is called once for each split in a process.
    split : str
        ``"train"`` or ``"test"``, or whatever ``load_data`` knows.
    context : flwr.app.Context
        The context of the client or of the server.

    Returns
    -------
    TensorExamples | ItemExamples
        A copy, in an order that the seed decides; a whole split in the order of its source.

    Raises
    ------
    ConfigError
        If a key of the run config cannot work.
    DatasetError
        If the data cannot be converted, or cannot be divided so.
    """
    whole, rows = _share(load_data, split, context)
    return whole.select(rows)


def count_labels(
    load_data: LoadData, split: str, context: Context, num_partitions: int
) -> list[dict[str, int]]:
    """Count what each simulated node would be given, without giving it.

    Parameters
    ----------
    load_data, split, context : Callable[[str, Context], Any], str, Context
        As for :func:`load_examples`; the context may be the server's.
    num_partitions : int
        How many nodes share the split.

    Returns
    -------
    list[dict[str, int]]
        By partition id: the number of examples of each class. Where labels are no classes, such
        as in a regression, the number of examples under ``"examples"``.

    Raises
    ------
    ConfigError, DatasetError
        As :func:`load_examples` does.
    """
    config = shared_config(context.run_config)
    call, spec = _Call(load_data, split, context), PartitionSpec.of(config, num_partitions)
    classes = _loaded(call, config.partition_by).classes()
    return [_counts(classes, rows) for rows in _rows(call, spec)]


def count_own_labels(load_data: LoadData, split: str, context: Context) -> dict[str, int]:
    """Count what this node works on; see :func:`load_examples` and :func:`count_labels`.

    Parameters
    ----------
    load_data, split, context : Callable[[str, Context], Any], str, Context
        As for :func:`load_examples`.
    """
    whole, rows = _share(load_data, split, context)
    return _counts(whole.classes(), np.arange(len(whole.examples)) if rows is None else rows)


class _Share(NamedTuple):
    """What a node works on: rows of a split, or all of it."""

    split: Split
    rows: NDArray[np.int64] | None


def _share(load_data: LoadData, split: str, context: Context) -> _Share:
    config = shared_config(context.run_config)
    call = _Call(load_data, split, context)
    place = [context.node_config.get(key) for key in _PLACE]
    if None in place:
        return _Share(_loaded(call, config.partition_by), None)
    partition_id, num_partitions = place
    spec = PartitionSpec.of(config, num_partitions)  # type: ignore[arg-type]  # it checks
    check_partition_id(partition_id, spec.num_partitions)  # type: ignore[arg-type]
    return _Share(_loaded(call, config.partition_by), _rows(call, spec)[partition_id])  # type: ignore[index]


def _counts(classes: NDArray[Any] | None, rows: NDArray[np.int64]) -> dict[str, int]:
    """Return how many of the rows are of each class, (N,); without classes, how many there are."""
    if classes is None:
        return {"examples": len(rows)}
    counted = np.unique(classes[rows], return_counts=True)
    return {str(label): int(count) for label, count in zip(*counted, strict=True)}


class _Call:
    """A call of ``load_data``, equal to another one that would return the same."""

    def __init__(self, load_data: LoadData, split: str, context: Context) -> None:
        self.load_data, self.split, self.context = load_data, split, context
        node = {key: value for key, value in context.node_config.items() if key not in _PLACE}
        self._key = (
            load_data,
            split,
            tuple(sorted(context.run_config.items())),
            tuple(sorted(node.items())),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Call) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=_SPLITS_KEPT)
def _loaded(call: _Call, partition_by: str) -> Split:
    return to_split(call.load_data(call.split, call.context), partition_by=partition_by)


@lru_cache(maxsize=_DIVISIONS_KEPT)
def _rows(call: _Call, spec: PartitionSpec) -> tuple[NDArray[np.int64], ...]:
    """Return the rows of every client."""
    return partition_rows(_groups(_loaded(call, spec.partition_by), spec), spec)


def _groups(split: Split, spec: PartitionSpec) -> NDArray[Any]:
    """Return what each row is divided by, (N,): its label, or its value in ``partition-by``."""
    if spec.partitioner in BY_SIZE:
        return np.zeros(len(split.examples), np.int64)
    if spec.partition_by:
        if spec.partition_by not in split.groups:
            raise DatasetError(
                f"partition-by: expected a column of the data, got {spec.partition_by!r}; return a "
                "data set or a data frame that has it from load_data"
            )
        return split.groups[spec.partition_by]
    labels = split.labels()
    by_value = spec.partitioner == "continuous"
    if labels.ndim != 1 or (labels.dtype.kind == "f" and not by_value):
        kind = "continuous" if labels.ndim == 1 else f"of shape {labels.shape[1:]} each"
        raise DatasetError(
            f"partitioner {spec.partitioner!r} divides by class, but the labels are {kind}; name a "
            f"column of classes as partition-by, or choose {', '.join(BY_SIZE)} or continuous"
        )
    return labels
