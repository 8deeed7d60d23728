"""The partitioners of flwr-datasets, and ours in their form.

This module is imported only by those who need it: flwr-datasets brings ``datasets``, matplotlib
and seaborn with it, and together they take two seconds.

Reference: https://flower.ai/docs/datasets/
"""

from __future__ import annotations

import math
import reprlib
import warnings
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset
from flwr_datasets.partitioner import (
    DirichletPartitioner,
    Partitioner,
    PathologicalPartitioner,
    ShardPartitioner,
)
from numpy.typing import NDArray

from fedwaggle.data.partitions import PartitionSpec, check_partition_id, partition_rows
from fedwaggle.errors import DatasetError

__all__ = ["deal", "make_partitioner"]


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


def deal(labels: NDArray[Any], spec: PartitionSpec) -> list[NDArray[np.int64]]:
    """Let the partitioner of flwr-datasets that a spec names deal rows out by their labels.

    Parameters
    ----------
    labels : ndarray
        (N,) one label for each row.
    spec : PartitionSpec
        How to divide: ``dirichlet``, ``shards`` or ``classes``.

    Returns
    -------
    list[ndarray]
        Row numbers, one int64 array for each client.

    Raises
    ------
    ValueError
        As flwr-datasets does.
    """
    partitioner = _flower_partitioner(spec, len(labels))
    # Only labels and row numbers go through flwr-datasets: no image is touched.
    partitioner.dataset = Dataset.from_dict({"row": np.arange(len(labels)), "label": labels})
    with warnings.catch_warnings():
        # It warns of each draw that it repeats and each class that it leaves out. The first is
        # its business, the second is an error in `partition_rows`.
        warnings.simplefilter("ignore")
        return [
            np.asarray(partitioner.load_partition(part).with_format("numpy")[:]["row"])
            for part in range(spec.num_partitions)
        ]


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


def _flower_partitioner(spec: PartitionSpec, num_rows: int) -> Partitioner:
    """Return the partitioner of flwr-datasets that a spec names, by a column ``label``."""
    n, per_client = spec.num_partitions, spec.classes_per_client
    if spec.partitioner == "dirichlet":
        return DirichletPartitioner(
            n, "label", alpha=float(spec.alpha), min_partition_size=1, seed=spec.seed
        )
    if spec.partitioner == "shards":
        # Rounded up, so that there are no more shards than wanted and none is left out, but
        # never so large that there are fewer shards than clients.
        shard_size = min(math.ceil(num_rows / (n * per_client)), num_rows // n)
        return ShardPartitioner(
            n, "label", shard_size=shard_size, keep_incomplete_shard=True, seed=spec.seed
        )
    return PathologicalPartitioner(
        n, "label", per_client, class_assignment_mode="first-deterministic", seed=spec.seed
    )
