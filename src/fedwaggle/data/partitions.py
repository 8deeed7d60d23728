"""Partitions: which rows of a split belong to which client.

The idea: rows are shuffled by the seed, then one of flwr-datasets' partitioners deals them
out by their labels. What it could not do, or could only do by leaving rows out, is refused in
words before or right after it is asked. So every row is in exactly one partition, and no
partition is empty. The result depends on the labels and the spec alone: each node works it out
for itself and gets the same.

References: McMahan et al., arXiv:1602.05629 (shards); Yurochkin et al., arXiv:1905.12022
(Dirichlet); Arivazhagan et al., arXiv:1912.00818 and Flower's ``PathologicalPartitioner``
(classes).
"""

from __future__ import annotations

import math
import reprlib
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset
from flwr_datasets.partitioner import (
    DirichletPartitioner,
    IidPartitioner,
    Partitioner,
    PathologicalPartitioner,
    ShardPartitioner,
)
from numpy.typing import NDArray

from fedwaggle.errors import ConfigError, DatasetError

__all__ = ["PARTITIONERS", "PartitionSpec", "make_partitioner", "partition_rows"]

PARTITIONERS = ("iid", "dirichlet", "shards", "classes")


@dataclass(frozen=True, kw_only=True)
class PartitionSpec:
    """How to divide a split; checked when it is made.

    Parameters
    ----------
    partitioner : str
        One of ``PARTITIONERS``.
    num_partitions : int
        How many clients share the split; at least 1.
    alpha : float
        For ``dirichlet``: how even a class is spread, above 0. Small means uneven.
    classes_per_client : int
        For ``classes``: how many classes each client holds. For ``shards``: how many shards.
    seed : int
        Decides who gets what; at least 0.

    Raises
    ------
    ConfigError
        With every mistake, by config key.
    """

    partitioner: str
    num_partitions: int
    alpha: float
    classes_per_client: int
    seed: int

    def __post_init__(self) -> None:
        expected = {
            "partitioner": (f"one of {', '.join(PARTITIONERS)}", self.partitioner in PARTITIONERS),
            "num_partitions": ("a whole number from 1", _is_int(self.num_partitions, at_least=1)),
            "alpha": ("a finite number above 0", _is_positive(self.alpha)),
            "classes_per_client": (
                "a whole number from 1",
                _is_int(self.classes_per_client, at_least=1),
            ),
            "seed": ("a whole number from 0", _is_int(self.seed, at_least=0)),
        }
        mistakes = [
            f"{field.replace('_', '-')}: expected {what}, got {reprlib.repr(getattr(self, field))}"
            for field, (what, holds) in expected.items()
            if not holds
        ]
        if mistakes:
            raise ConfigError(mistakes)


def make_partitioner(
    name: str,
    num_partitions: int,
    *,
    alpha: float = 0.5,
    classes_per_client: int = 2,
    seed: int = 0,
    partition_by: str = "label",
) -> Partitioner:
    """Make a partitioner from the values of a run config.

    Parameters
    ----------
    name : str
        ``"iid"``, ``"dirichlet"``, ``"shards"`` or ``"classes"``.
    num_partitions, alpha, classes_per_client, seed : int, float, int, int
        See :class:`PartitionSpec`.
    partition_by : str (default: "label")
        The column of labels.

    Returns
    -------
    flwr_datasets.partitioner.Partitioner
        Give it a data set (``partitioner.dataset = ...``, or through ``FederatedDataset``),
        then call ``load_partition(partition_id)``.

    Raises
    ------
    ConfigError
        With every value that cannot work.

    Examples
    --------
    >>> from datasets import Dataset
    >>> partitioner = make_partitioner("classes", 2, classes_per_client=1)
    >>> partitioner.dataset = Dataset.from_dict({"label": [0, 1, 1, 0, 1]})
    >>> partitioner.load_partition(1)["label"][:]
    [1, 1, 1]
    """
    spec = PartitionSpec(
        partitioner=name,
        num_partitions=num_partitions,
        alpha=alpha,
        classes_per_client=classes_per_client,
        seed=seed,
    )
    return _SpecPartitioner(spec, partition_by)


def partition_rows(labels: NDArray[Any], spec: PartitionSpec) -> tuple[NDArray[np.int64], ...]:
    """Deal the rows of a split out to its clients.

    Parameters
    ----------
    labels : ndarray
        (N,) one label for each row.
    spec : PartitionSpec
        How to divide.

    Returns
    -------
    tuple[ndarray, ...]
        Row numbers, one int64 array for each client: none empty, disjoint, together all rows.

    Raises
    ------
    DatasetError
        If these labels cannot be divided so. The message says what would help.
    """
    _check_possible(labels, spec)
    order = np.random.default_rng(spec.seed).permutation(len(labels))
    partitioner = _flower_partitioner(spec, len(labels))
    # Only labels and row numbers go through flwr-datasets: no image is touched.
    partitioner.dataset = Dataset.from_dict({"row": order, "label": labels[order]})
    parts = _deal(partitioner, spec)
    _check_covered(labels, parts, spec)
    return parts


class _SpecPartitioner(Partitioner):  # type: ignore[misc]  # flwr-datasets ships no types
    """``partition_rows`` in the form that flwr-datasets expects."""

    def __init__(self, spec: PartitionSpec, partition_by: str) -> None:
        super().__init__()
        self._spec = spec
        self._partition_by = partition_by

    @property
    def num_partitions(self) -> int:
        """How many partitions there are."""
        return self._spec.num_partitions

    @cached_property
    def _rows(self) -> tuple[NDArray[np.int64], ...]:
        columns = self.dataset.column_names
        if self._partition_by not in columns:
            raise DatasetError(
                f"partition_by: expected one of the columns {', '.join(columns)}, "
                f"got {reprlib.repr(self._partition_by)}"
            )
        labels = self.dataset.select_columns([self._partition_by]).with_format("numpy")[:]
        return partition_rows(labels[self._partition_by], self._spec)

    def load_partition(self, partition_id: int) -> Dataset:
        """Return the rows of one client."""
        check_partition_id(partition_id, self._spec.num_partitions)
        return self.dataset.select(self._rows[partition_id])


def check_partition_id(partition_id: int, num_partitions: int) -> None:
    """Raise ConfigError unless 0 <= partition_id < num_partitions."""
    if not _is_int(partition_id, at_least=0) or partition_id >= num_partitions:
        raise ConfigError(
            [
                f"partition-id: expected a whole number from 0 to {num_partitions - 1}, "
                f"got {reprlib.repr(partition_id)}"
            ]
        )


def _flower_partitioner(spec: PartitionSpec, num_rows: int) -> Partitioner:
    """Return the partitioner of flwr-datasets that a spec names, for columns row and label."""
    n, per_client = spec.num_partitions, spec.classes_per_client
    match spec.partitioner:
        case "dirichlet":
            return DirichletPartitioner(
                n, "label", alpha=float(spec.alpha), min_partition_size=1, seed=spec.seed
            )
        case "shards":
            # Rounded up, so that there are no more shards than wanted and none is left out,
            # but never so large that there are fewer shards than clients.
            shard_size = min(math.ceil(num_rows / (n * per_client)), num_rows // n)
            return ShardPartitioner(
                n, "label", shard_size=shard_size, keep_incomplete_shard=True, seed=spec.seed
            )
        case "classes":
            return PathologicalPartitioner(
                n, "label", per_client, class_assignment_mode="first-deterministic", seed=spec.seed
            )
        case _:
            return IidPartitioner(n)


def _deal(partitioner: Partitioner, spec: PartitionSpec) -> tuple[NDArray[np.int64], ...]:
    """Let the partitioner of flwr-datasets do its work."""
    try:
        with warnings.catch_warnings():
            # It warns of each draw that it repeats and each class that it leaves out. The
            # first is its business, the second is an error here.
            warnings.simplefilter("ignore")
            return tuple(
                np.asarray(partitioner.load_partition(part).with_format("numpy")[:]["row"])
                for part in range(spec.num_partitions)
            )
    except ValueError as error:
        raise _impossible(spec, f"flwr-datasets found no way ({error})") from error


def _check_possible(labels: NDArray[Any], spec: PartitionSpec) -> None:
    """Raise for what is impossible by the numbers alone."""
    if spec.num_partitions > len(labels):
        raise _impossible(spec, f"there are only {len(labels)} examples")
    if spec.partitioner == "classes":
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
    fixes = {
        "iid": "use fewer clients",
        "dirichlet": "use fewer clients, or a larger alpha",
        "shards": "use fewer clients",
        "classes": "use at least as many clients as classes, or another classes-per-client, or "
        "partitioner 'shards', which gives away all examples with any number of clients",
    }
    details = {
        "dirichlet": f" with alpha {spec.alpha}",
        "classes": f" with {spec.classes_per_client} classes each",
    }
    return DatasetError(
        f"partitioner {spec.partitioner!r} cannot make {spec.num_partitions} partitions"
        f"{details.get(spec.partitioner, '')}: {reason}; {fixes[spec.partitioner]}"
    )


def _is_int(value: object, *, at_least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least


def _is_positive(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0  # type: ignore[arg-type,operator]
