"""These partitions in the form of flwr-datasets: a ``Partitioner`` for ``FederatedDataset``.

Reference: https://flower.ai/docs/datasets/
"""

from __future__ import annotations

import reprlib
from functools import cached_property

import numpy as np
from datasets import Dataset
from flwr_datasets.partitioner import Partitioner
from numpy.typing import NDArray

from fedwaggle.data.image_columns import column_values
from fedwaggle.data.partitioning.rows import partition_rows
from fedwaggle.data.partitioning.spec import PartitionSpec, check_partition_id
from fedwaggle.errors import DatasetError

__all__ = ["make_partitioner"]


def make_partitioner(
    name: str,
    num_partitions: int,
    *,
    alpha: float = 0.5,
    classes_per_client: int = 2,
    seed: int = 0,
    strictness: float = 0.5,
    partition_by: str = "label",
) -> Partitioner:
    """Make a partitioner from the values of a run config.

    Parameters
    ----------
    name : str
        One of ``fedwaggle.config.PARTITIONERS``.
    num_partitions, alpha, classes_per_client, seed, strictness : int, float, int, int, float
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
        strictness=strictness,
        partition_by=partition_by,
    )
    return _SpecPartitioner(spec, partition_by)


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
        groups = column_values(self.dataset, self._partition_by, "numpy")
        return partition_rows(groups, self._spec)

    def load_partition(self, partition_id: int) -> Dataset:
        """Return the rows of one client."""
        check_partition_id(partition_id, self._spec.num_partitions)
        return self.dataset.select(self._rows[partition_id])
