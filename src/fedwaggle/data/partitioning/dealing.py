"""Rows dealt out by flwr-datasets' partitioners, from their labels alone.

Imported only where it is needed: flwr-datasets brings ``datasets``, matplotlib and seaborn with
it, and together they take two seconds.

Reference: https://flower.ai/docs/datasets/
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from datasets import Dataset
from flwr_datasets.partitioner import (
    ContinuousPartitioner,
    DirichletPartitioner,
    ExponentialPartitioner,
    InnerDirichletPartitioner,
    LinearPartitioner,
    Partitioner,
    PathologicalPartitioner,
    ShardPartitioner,
    SquarePartitioner,
)
from numpy.typing import NDArray

from fedwaggle.data.partitioning.spec import PartitionSpec

__all__ = ["deal"]

_BY_SIZE = {
    "linear": LinearPartitioner,
    "square": SquarePartitioner,
    "exponential": ExponentialPartitioner,
}


def deal(labels: NDArray[Any], spec: PartitionSpec) -> list[NDArray[np.int64]]:
    """Deal rows out by their labels, with the partitioner of flwr-datasets that a spec names.

    Parameters
    ----------
    labels : ndarray
        (N,) what each row is divided by.
    spec : PartitionSpec
        How to divide: any partitioner but ``iid`` and those by an id.

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


def _flower_partitioner(spec: PartitionSpec, num_rows: int) -> Partitioner:
    """Return the partitioner of flwr-datasets that a spec names, by a column ``label``."""
    n, per_client = spec.num_partitions, spec.classes_per_client
    if spec.partitioner in _BY_SIZE:
        return _BY_SIZE[spec.partitioner](n)
    if spec.partitioner == "inner-dirichlet":
        sizes = [len(part) for part in np.array_split(np.arange(num_rows), n)]
        return InnerDirichletPartitioner(sizes, "label", alpha=float(spec.alpha), seed=spec.seed)
    if spec.partitioner == "dirichlet":
        return DirichletPartitioner(
            n, "label", alpha=float(spec.alpha), min_partition_size=1, seed=spec.seed
        )
    if spec.partitioner == "continuous":
        return ContinuousPartitioner(n, "label", float(spec.strictness), seed=spec.seed)
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
