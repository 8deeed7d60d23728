"""Examples: features with their labels, in batches of tensors.

``Examples`` is what an app trains and tests on. Features and labels that fit in memory are
tensors, and a batch costs one look-up of rows: on 600 images of 28 x 28 an epoch takes a seventh
of what a ``DataLoader`` takes. A torch ``Dataset`` stays as it is, and its items are read when a
batch needs them, so that random transforms are drawn anew in each epoch.

Pixels stay bytes until they are needed: a whole split is kept as uint8 (Fashion-MNIST: 47 MB),
and only the rows that a client asks for become float32, which take four times as much.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fedwaggle.errors import ConfigError, DatasetError

__all__ = [
    "Batches",
    "Examples",
    "ItemExamples",
    "Items",
    "TensorExamples",
    "as_float",
    "as_label_tensor",
    "fingerprint",
]

_FINGERPRINT_DIGITS = 16


class Items(Sized, Protocol):
    """A torch ``Dataset`` in the style of a map, or what behaves like one: pairs by index."""

    def __getitem__(self, index: int, /) -> Any: ...  # noqa: ANN401  # (x, y) of whatever kind


class Examples(Dataset[tuple[Tensor, Tensor]], ABC):
    """The examples of one client, or of a whole split.

    ``len(examples)`` is N, the number of examples, and ``examples[i]`` is the pair of one. So it
    can be given to ``torch.utils.data.DataLoader``, too.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Return N, the number of examples."""

    @abstractmethod
    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, ...) and labels (B, ...) of rows (B,) int64."""

    @abstractmethod
    def to(self, device: torch.device) -> Examples:
        """Return the same examples, whose batches are on ``device``."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return features and label of one example."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        x, y = self.take(torch.tensor([index % len(self)]))
        return x[0], y[0]

    def batches(
        self, batch_size: int, *, seed: int | None = None, drop_last: bool = False
    ) -> Batches:
        """Return the examples in batches of features and labels.

        Parameters
        ----------
        batch_size : int
            Examples in a batch; the last batch holds what is left.
        seed : int | None (default: None)
            Shuffles the examples, in another order in each epoch; None keeps their order.
        drop_last : bool (default: False)
            Whether a last batch that is not full is left out, as BatchNorm needs it where it
            could be a single example.

        Returns
        -------
        Batches
            Iterate over it once for each epoch.

        Raises
        ------
        ConfigError
            If ``batch_size`` is below 1, or ``drop_last`` would leave no batch.

        Examples
        --------
        >>> examples = TensorExamples(torch.zeros(10, 3), torch.arange(10))
        >>> [len(y) for x, y in examples.batches(4, seed=0)]
        [4, 4, 2]
        """
        if batch_size < 1:
            raise ConfigError([f"batch-size: expected at least 1, got {batch_size}"])
        if drop_last and len(self) < batch_size:
            raise ConfigError(
                [
                    f"batch-size: expected at most {len(self)}, the examples of this client, since "
                    f"drop_last leaves out a batch that is not full, got {batch_size}"
                ]
            )
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return Batches(self, batch_size, generator, drop_last)


@dataclass(frozen=True)
class Batches:
    """Examples in batches; each iteration is an epoch. ``len(batches)`` is their number."""

    examples: Examples
    batch_size: int
    generator: torch.Generator | None
    drop_last: bool

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        full, rest = divmod(len(self.examples), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield features (B, ...) and labels (B, ...) of each batch of an epoch."""
        n = len(self.examples)
        order = torch.arange(n)
        if self.generator is not None:
            order = torch.randperm(n, generator=self.generator)
        for rows in torch.split(order, self.batch_size)[: len(self)]:
            yield self.examples.take(rows)


@dataclass(frozen=True, eq=False)
class TensorExamples(Examples):
    """Examples in memory.

    Parameters
    ----------
    features : Tensor
        (N, ...) float32, or whole numbers such as tokens.
    labels : Tensor
        (N, ...) int64 classes, or float32 values.

    Examples
    --------
    >>> examples = TensorExamples(torch.tensor([[0.5], [1.5]]), torch.tensor([1, 0]))
    >>> len(examples), examples[1]
    (2, (tensor([1.5000]), tensor(0)))
    """

    features: Tensor  # (N, ...)
    labels: Tensor  # (N, ...)

    def __post_init__(self) -> None:
        if len(self.features) != len(self.labels):
            raise DatasetError(
                f"expected as many labels as features, got {len(self.features)} features and "
                f"{len(self.labels)} labels"
            )

    def __len__(self) -> int:
        """Return N, the number of examples."""
        return len(self.labels)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, ...) and labels (B, ...) of rows (B,) int64."""
        return self.features[rows], self.labels[rows]

    def to(self, device: torch.device) -> TensorExamples:
        """Return the same examples on ``device``."""
        return TensorExamples(self.features.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class ItemExamples(Examples):
    """Examples that a torch ``Dataset`` makes when they are asked for.

    Parameters
    ----------
    items : Items
        Gives a pair ``(x, y)`` for each index: tensors, arrays, numbers or, as torchvision's sets
        without a transform do, images of Pillow.
    rows : Tensor
        (N,) int64 indices of these examples in ``items``.
    device : torch.device
        Where batches go.
    """

    items: Items
    rows: Tensor
    device: torch.device = torch.device("cpu")  # noqa: RUF009  # immutable

    def __len__(self) -> int:
        """Return N, the number of examples."""
        return len(self.rows)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, ...) and labels (B, ...) of rows (B,) int64."""
        pairs = [self.items[int(index)] for index in self.rows[rows]]
        features = torch.stack([_feature(pair) for pair in pairs])
        labels = torch.stack([as_label_tensor(pair[1]) for pair in pairs])
        return features.to(self.device), labels.to(self.device)

    def listed_labels(self) -> Tensor | None:
        """Return the labels (N,) that a set lists beside its items, as torchvision's do."""
        listed = getattr(self.items, "targets", None)
        return None if listed is None else as_label_tensor(listed)[self.rows]

    def to(self, device: torch.device) -> ItemExamples:
        """Return the same examples, whose batches are on ``device``."""
        return ItemExamples(self.items, self.rows, device)


def as_float(values: Tensor) -> Tensor:
    """Return features as a model takes them: bytes are pixels, from 0 to 1; any shape.

    Floats become float32, and other whole numbers, such as tokens, int64.
    """
    if values.dtype == torch.uint8:
        return values.float().div_(255)
    return values.float() if values.is_floating_point() else values.long()


def as_label_tensor(labels: Any) -> Tensor:  # noqa: ANN401  # a tensor, an array or a number
    """Return labels as a loss takes them: int64 classes, or float32 values; any shape.

    Raises
    ------
    DatasetError
        If they are not numbers.
    """
    try:
        tensor = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DatasetError(
            f"labels: expected numbers, got {type(labels).__name__} ({error}); give each class a "
            "number in load_data, the same one in every split"
        ) from error
    return tensor.float() if tensor.is_floating_point() else tensor.long()


def fingerprint(examples: Examples) -> str:
    """Return the SHA-256 of the content, shortened to 16 hexadecimal digits.

    It covers the shape, the features and the labels, in order. So it does not depend on how a
    set was stored. Of examples that a torch ``Dataset`` makes, whose transforms may be random, it
    covers the rows and the labels alone.
    """
    if isinstance(examples, ItemExamples):
        labels = examples.listed_labels()
        values = [examples.rows] if labels is None else [examples.rows, labels]
        shape = tuple(examples.rows.shape)
    elif isinstance(examples, TensorExamples):
        values, shape = [examples.features, examples.labels], tuple(examples.features.shape)
    else:
        raise DatasetError(f"expected examples of load_examples, got {type(examples).__name__}")
    digest = hashlib.sha256(repr(shape).encode())
    for tensor in values:
        array = tensor.contiguous().numpy()
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
    return digest.hexdigest()[:_FINGERPRINT_DIGITS]


def _feature(pair: Any) -> Tensor:  # noqa: ANN401  # whatever an item is
    """Return the features of an item, checked to be one of a pair."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise DatasetError(
            f"expected a dataset of pairs (x, y), got items of type {type(pair).__name__}; return "
            "pairs from its __getitem__"
        )
    x = pair[0]
    if isinstance(x, Tensor):
        return as_float(x)
    array = np.asarray(x)
    if array.dtype == np.uint8 and array.ndim in (2, 3) and hasattr(x, "getbands"):
        array = array[np.newaxis] if array.ndim == 2 else array.transpose(2, 0, 1)  # Pillow's
    return as_float(torch.tensor(array))
