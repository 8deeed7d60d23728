"""A data set as tensors: decoded once, so that a training loop only indexes.

Pixels stay bytes until they are needed: a whole split is kept as uint8 (Fashion-MNIST: 47 MB),
and only the rows that a client asks for become float32, which take four times as much.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedwaggle.errors import ConfigError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Examples", "batches", "fingerprint", "to_tensors"]

_FINGERPRINT_DIGITS = 16


@dataclass(frozen=True)
class Examples:
    """Images with their labels, ready for a model.

    Parameters
    ----------
    images : Tensor
        (N, C, H, W) float32 in [0, 1]; C is 1 (grey) or 3 (RGB).
    labels : Tensor
        (N,) int64 in [0, num_classes).
    num_classes : int
        How many classes the whole set tells apart; these examples may show fewer.
    """

    images: Tensor  # (N, C, H, W) float32 in [0, 1]
    labels: Tensor  # (N,) int64
    num_classes: int

    def __len__(self) -> int:
        """Return N, the number of examples."""
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        _, channels, height, width = self.images.shape
        return channels, height, width


def to_tensors(dataset: Dataset) -> Examples:
    """Decode a data set of images.

    Parameters
    ----------
    dataset : datasets.Dataset
        With a column of images (``image``, ``img``, ...) and one of labels (``label``,
        ``fine_label``, ...). Images may be an ``Image`` column or arrays, (H, W), (H, W, C) or
        (C, H, W), of one size. Whole numbers are taken as 0 to 255 and divided by 255; floats
        are kept as they are.

    Raises
    ------
    DatasetError
        If no such columns are there, or they hold something else.

    Examples
    --------
    >>> from fedwaggle.data import load
    >>> examples = to_tensors(load("fashion-mnist-mini", "test"))
    >>> len(examples), examples.image_shape, examples.num_classes
    (1000, (1, 28, 28), 10)
    """
    from fedwaggle.data.image_columns import decode_images, decode_labels

    labels, num_classes = decode_labels(dataset)
    return Examples(as_float(decode_images(dataset)), labels, num_classes)


def as_float(pixels: Tensor) -> Tensor:
    """Return pixels as float32: bytes divided by 255, floats unchanged; any shape."""
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels.float()


def batches(n: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Shuffle the indices of ``n`` examples and hand them out in batches.

    Parameters
    ----------
    n : int
        Number of examples; 0 gives no batch.
    batch_size : int
        Indices a batch; the last batch holds what is left.
    generator : torch.Generator
        Decides the order; it is advanced.

    Returns
    -------
    Iterator[Tensor]
        (B,) int64 each, B at most ``batch_size``; together every index once.

    Raises
    ------
    ConfigError
        If ``batch_size`` is below 1.

    Examples
    --------
    >>> [len(index) for index in batches(10, 4, torch.Generator().manual_seed(0))]
    [4, 4, 2]
    """
    if batch_size < 1:
        raise ConfigError([f"batch-size: expected at least 1, got {batch_size}"])
    order = torch.randperm(n, generator=generator)
    return iter(torch.split(order, batch_size) if n else ())


def fingerprint(data: Dataset | Examples) -> str:
    """Return the content's SHA-256, shortened to 16 hexadecimal digits.

    It covers the shape, the float32 pixels and the labels, in order. So it does not depend on
    how a set was stored: a data set and the tensors made from it have the same fingerprint.

    Raises
    ------
    DatasetError
        If a data set has no columns of images and labels.
    """
    examples = data if isinstance(data, Examples) else to_tensors(data)
    digest = hashlib.sha256(repr(tuple(examples.images.shape)).encode())
    digest.update(examples.images.contiguous().numpy().astype("<f4", copy=False).data)
    digest.update(examples.labels.contiguous().numpy().astype("<i8", copy=False).data)
    return digest.hexdigest()[:_FINGERPRINT_DIGITS]
