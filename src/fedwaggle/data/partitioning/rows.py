"""Partitions: which rows of a split belong to which client.

Rows are shuffled by the seed, then one of flwr-datasets' partitioners deals them out by their
labels. (``iid`` is done here: what ``IidPartitioner`` does is one call of NumPy, and importing
flwr-datasets takes two seconds. So are the two ``natural-id``, whose partitions have the order of
the ids here, not that of the shuffled rows; ``grouped-natural-id`` makes as many groups of ids as
there are clients, of equal numbers of ids or one more.) A division that is impossible, or that
would leave rows out, is refused with the reason. So every row is in exactly one partition, and no
partition is empty. The result depends on the labels and the spec alone: each node computes it and
gets the same.

References: McMahan et al., arXiv:1602.05629 (shards); Yurochkin et al., arXiv:1905.12022
(Dirichlet); Arivazhagan et al., arXiv:1912.00818 and Flower's ``PathologicalPartitioner``
(classes).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedwaggle.data.partitioning.spec import PartitionSpec
from fedwaggle.errors import DatasetError

__all__ = ["partition_rows"]


def partition_rows(labels: NDArray[Any], spec: PartitionSpec) -> tuple[NDArray[np.int64], ...]:
    """Deal the rows of a split out to its clients.

    Parameters
    ----------
    labels : ndarray
        (N,) what each row is divided by: its label, or its value in ``partition-by``.
    spec : PartitionSpec
        How to divide.

    Returns
    -------
    tuple[ndarray, ...]
        Row numbers, one int64 array for each client: none empty, disjoint, together all rows.

    Raises
    ------
    DatasetError
        If these labels cannot be divided so. The message states what would help.
    """
    _check_possible(labels, spec)
    order = np.random.default_rng(spec.seed).permutation(len(labels))
    parts = tuple(order[part] for part in _deal(labels[order], spec))
    _check_covered(labels, parts, spec)
    return parts


def _deal(labels: NDArray[Any], spec: PartitionSpec) -> list[NDArray[np.int64]]:
    """Return the rows of each client in the shuffled order."""
    if spec.partitioner == "iid":
        return np.array_split(np.arange(len(labels)), spec.num_partitions)
    if spec.partitioner == "natural-id":
        return [np.flatnonzero(labels == owner) for owner in np.unique(labels)]
    if spec.partitioner == "grouped-natural-id":
        groups = np.array_split(np.unique(labels), spec.num_partitions)
        return [np.flatnonzero(np.isin(labels, group)) for group in groups]
    from fedwaggle.data.partitioning.dealing import deal

    try:
        return deal(labels, spec)
    except ValueError as error:
        raise _impossible(spec, f"flwr-datasets found no way ({error})") from error


def _check_possible(labels: NDArray[Any], spec: PartitionSpec) -> None:
    """Raise for what is impossible by the numbers alone."""
    if spec.num_partitions > len(labels):
        raise _impossible(spec, f"there are only {len(labels)} examples")
    if spec.partitioner == "natural-id" and (ids := len(np.unique(labels))) != spec.num_partitions:
        raise _impossible(
            spec, f"column {spec.partition_by!r} holds {ids} ids, and each is a client"
        )
    if spec.partitioner == "grouped-natural-id":
        ids = len(np.unique(labels))
        if ids < spec.num_partitions:
            raise _impossible(spec, f"column {spec.partition_by!r} holds only {ids} ids")
    if spec.partitioner == "continuous" and labels.dtype.kind not in "iuf":
        raise _impossible(spec, "the values that it orders by are not numbers")
    if spec.partitioner in ("classes", "pathological"):
        held, num_classes = spec.classes_per_client, len(np.unique(labels))
        if held > num_classes:
            raise _impossible(spec, f"there are only {num_classes} classes")
        if held * spec.num_partitions < num_classes:
            raise _impossible(
                spec,
                f"together they hold at most {held * spec.num_partitions} of the "
                f"{num_classes} classes, and the rest would be left out",
            )


def _check_covered(
    labels: NDArray[Any], parts: tuple[NDArray[np.int64], ...], spec: PartitionSpec
) -> None:
    """Raise if classes were left out, as ``classes`` does when no client drew them."""
    dealt = sum(len(part) for part in parts)
    if dealt < len(labels):
        missing = np.setdiff1d(labels, labels[np.concatenate(parts)])
        raise _impossible(
            spec,
            f"no client drew the classes {', '.join(map(str, missing))}, and {len(labels) - dealt} "
            "examples would be left out",
        )


def _impossible(spec: PartitionSpec, reason: str) -> DatasetError:
    classes = (
        "use at least as many clients as classes, or another classes-per-client, or "
        "partitioner 'shards', which gives away all examples with any number of clients"
    )
    fixes = {
        "dirichlet": "use fewer clients, or a larger alpha",
        "inner-dirichlet": "use fewer clients, or a larger alpha",
        "classes": classes,
        "pathological": classes,
        "natural-id": "start as many nodes as there are ids, or use 'grouped-natural-id'",
        "continuous": "name a column of numbers as partition-by",
    }
    with_alpha = f" with alpha {spec.alpha}"
    with_classes = f" with {spec.classes_per_client} classes each"
    details = {
        "dirichlet": with_alpha,
        "inner-dirichlet": with_alpha,
        "classes": with_classes,
        "pathological": with_classes,
    }
    return DatasetError(
        f"partitioner {spec.partitioner!r} cannot make {spec.num_partitions} partitions"
        f"{details.get(spec.partitioner, '')}: {reason}; "
        f"{fixes.get(spec.partitioner, 'use fewer clients')}"
    )
