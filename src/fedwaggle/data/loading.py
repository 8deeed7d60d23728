"""What an app asks for: a client's share of a data set, or a whole split, as tensors.

A split is decoded once in a process and divided once for each way of dividing; after that a
client's examples cost one look-up of rows. The shared pixels are never changed: what comes
back is a copy.
"""

from __future__ import annotations

import os
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedwaggle.data.examples import Examples, as_float
from fedwaggle.data.partition_spec import PartitionSpec, check_partition_id
from fedwaggle.data.partitions import partition_rows
from fedwaggle.data.sources import load, read_arrays

__all__ = ["load_partition", "load_split"]

# One set has two splits; a process seldom works on more than one set at a time.
_SPLITS_KEPT = 4
_DIVISIONS_KEPT = 8


def load_partition(
    name: str,
    partition_id: int,
    num_partitions: int,
    *,
    split: str = "train",
    partitioner: str = "iid",
    alpha: float = 0.5,
    classes_per_client: int = 2,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
) -> Examples:
    """Load one client's share of a split.

    The test split is divided by the same partitioner and seed. That gives a client about the
    mix of labels that it trains on: exactly its classes with ``classes``, nearly its mix with
    ``dirichlet``, unless a draw had to be repeated because it left a client without examples.

    Parameters
    ----------
    name, split, data_dir : str, str, str | PathLike | None
        See :func:`fedwaggle.data.load`.
    partition_id : int
        From 0 to ``num_partitions - 1``.
    num_partitions, partitioner, alpha, classes_per_client, seed : int, str, float, int, int
        See :func:`fedwaggle.data.make_partitioner`.

    Returns
    -------
    fedwaggle.data.Examples
        A copy, in an order that the seed decides.

    Raises
    ------
    ConfigError
        If an argument cannot work.
    DatasetError
        If the set cannot be had, or cannot be divided so.

    Examples
    --------
    >>> examples = load_partition("fashion-mnist-mini", 0, 10)
    >>> examples.images.shape
    torch.Size([600, 1, 28, 28])
    """
    spec = PartitionSpec(
        partitioner=partitioner,
        num_partitions=num_partitions,
        alpha=alpha,
        classes_per_client=classes_per_client,
        seed=seed,
    )
    check_partition_id(partition_id, num_partitions)
    folder = os.fspath(data_dir) if data_dir else None
    rows = torch.from_numpy(_rows(name, split, folder, spec)[partition_id])
    images, labels, num_classes = _decoded(name, split, folder)
    return Examples(as_float(images[rows]), labels[rows], num_classes)


def load_split(
    name: str, split: str, *, data_dir: str | os.PathLike[str] | None = None
) -> Examples:
    """Load a whole split, in the order of its source.

    Parameters
    ----------
    name, split, data_dir : str, str, str | PathLike | None
        See :func:`fedwaggle.data.load`.

    Returns
    -------
    fedwaggle.data.Examples
        A copy.

    Raises
    ------
    ConfigError
        If an argument cannot work.
    DatasetError
        If the set cannot be had.

    Examples
    --------
    >>> len(load_split("fashion-mnist-mini", "test"))
    1000
    """
    images, labels, num_classes = _decoded(name, split, os.fspath(data_dir) if data_dir else None)
    # A float image is already what as_float would make: only a clone is a copy for certain.
    return Examples(as_float(images.clone()), labels.clone(), num_classes)


@lru_cache(maxsize=_SPLITS_KEPT)
def _decoded(name: str, split: str, data_dir: str | None) -> tuple[Tensor, Tensor, int]:
    """Return images (N, C, H, W) as they are stored, labels (N,) int64, number of classes."""
    arrays = read_arrays(name, split, data_dir=data_dir)
    if arrays is not None:
        images, labels, num_classes = arrays
        # Copies, since what was read from a file may be read-only, and a tensor never is.
        return (
            torch.tensor(images[:, np.newaxis]),
            torch.tensor(labels.astype(np.int64)),
            num_classes,
        )
    from fedwaggle.data.image_columns import decode_images, decode_labels

    dataset = load(name, split, data_dir=data_dir)
    return decode_images(dataset), *decode_labels(dataset)


@lru_cache(maxsize=_DIVISIONS_KEPT)
def _rows(
    name: str, split: str, data_dir: str | None, spec: PartitionSpec
) -> tuple[NDArray[np.int64], ...]:
    """Return the rows of every client."""
    _, labels, _ = _decoded(name, split, data_dir)
    return partition_rows(labels.numpy(), spec)
