"""Columns of a Hugging Face data set, decoded into tensors.

Sets on the Hub name their columns differently and store images as files or as nested lists of
numbers. This is the one place that knows. What it cannot decode without a guess it refuses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Image, LargeList, List, Value
from numpy.typing import NDArray
from torch import Tensor

from fedwaggle.data.columns import IMAGE_COLUMNS, LABEL_COLUMNS
from fedwaggle.errors import DatasetError

__all__ = ["column_values", "decode_images", "decode_labels"]


_CHANNELS = (1, 3)
_GREY_MODES = {"L", "1"}
_COLOUR_MODES = {"L", "1", "RGB", "RGBA", "P", "LA", "CMYK", "YCbCr", "HSV"}


def decode_images(dataset: Dataset) -> Tensor:
    """Return the images as (N, C, H, W): uint8 where they are whole numbers, else float32.

    Raises
    ------
    DatasetError
        If there is no column of images, their sizes differ, or their values are not pixels.
    """
    column = _find(dataset, IMAGE_COLUMNS, "images")
    decode = _decode_files if isinstance(dataset.features[column], Image) else _decode_arrays
    pixels = decode(dataset, column)
    return torch.from_numpy(np.ascontiguousarray(_channels_first(pixels, column)))


def decode_labels(dataset: Dataset) -> Tensor:
    """Return the labels, (N,) int64.

    Raises
    ------
    DatasetError
        If there is no column of labels, or it holds anything but whole numbers from 0.
    """
    column = _find(dataset, LABEL_COLUMNS, "labels")
    feature = dataset.features[column]
    if not isinstance(feature, ClassLabel | Value) or "int" not in feature.dtype:
        raise DatasetError(
            f"column {column!r}: expected labels as whole numbers, got {feature}; "
            f"dataset.class_encode_column({column!r}) makes numbers of them"
        )
    labels = np.array(column_values(dataset, column, "numpy"), dtype=np.int64)
    if labels.size and labels.min() < 0:
        raise DatasetError(
            f"column {column!r}: expected labels from 0, got {labels.min()}; "
            "this split may have no labels: take another one"
        )
    return torch.from_numpy(labels)


def _find(dataset: Dataset, names: tuple[str, ...], content: str) -> str:
    """Return the first of ``names`` that is a column of the data set."""
    for name in names:
        if name in dataset.column_names:
            return name
    raise DatasetError(
        f"no column of {content}: expected one of {', '.join(names)}, got "
        f"{', '.join(dataset.column_names)}; dataset.rename_column gives a column another name"
    )


def column_values(dataset: Dataset, column: str, format_name: str | None, **options: object) -> Any:  # noqa: ANN401  # a list, an array or an Arrow column, as the format states
    """Return all values of one column, whatever format or transform the user has set.

    The column is taken out first: a data set decodes every column of the rows it is asked for.
    """
    return dataset.select_columns([column]).with_format(format_name, **options)[:][column]


def _decode_files(dataset: Dataset, column: str) -> NDArray[Any]:
    """Decode image files into (N, H, W) or (N, H, W, 3) uint8: all grey as grey, else as RGB."""
    images = column_values(dataset, column, None)
    modes = {image.mode for image in images}
    if not modes <= _COLOUR_MODES:
        # 16-bit and float images would be cut to 8 bits without a word.
        raise DatasetError(
            f"column {column!r}: expected images of 8 bits a channel, got Pillow's modes "
            f"{', '.join(sorted(modes))}; convert them first, with dataset.map"
        )
    mode = "L" if modes <= _GREY_MODES else "RGB"
    return _stack([np.asarray(image.convert(mode)) for image in images], column)


def _decode_arrays(dataset: Dataset, column: str) -> NDArray[Any]:
    """Decode a column of nested numbers, (N, ...), into uint8 or float32."""
    leaf = dataset.features[column]
    while isinstance(leaf, List | LargeList):
        leaf = leaf.feature
    name = str(getattr(leaf, "dtype", ""))
    if "int" not in name and "float" not in name:
        raise DatasetError(f"column {column!r}: expected images, got {dataset.features[column]}")
    dtype = np.dtype(name)
    # The stored type: without it whole numbers come as int64, eight times the bytes.
    arrays = column_values(dataset, column, "numpy", dtype=dtype)
    pixels = _stack(list(arrays), column) if arrays.dtype == object else arrays
    if dtype.kind == "f":
        return pixels.astype(np.float32, copy=False)
    if pixels.size and (pixels.min() < 0 or pixels.max() > 255):
        raise DatasetError(
            f"column {column!r}: expected whole numbers from 0 to 255, got {pixels.min()} to "
            f"{pixels.max()}; scale them to floats from 0 to 1"
        )
    return pixels.astype(np.uint8, copy=False)


def _stack(arrays: list[NDArray[Any]], column: str) -> NDArray[Any]:
    """Stack images of one size, (N, ...)."""
    sizes = {array.shape for array in arrays}
    if len(sizes) > 1:
        raise DatasetError(
            f"column {column!r}: expected images of one size, got {len(sizes)} sizes, such as "
            f"{' and '.join(map(str, sorted(sizes)[:2]))}; resize them first, with dataset.map"
        )
    return np.stack(arrays) if arrays else np.empty((0, 0, 0), np.uint8)


def _channels_first(pixels: NDArray[Any], column: str) -> NDArray[Any]:
    """Return (N, C, H, W) from (N, H, W), (N, H, W, C) or (N, C, H, W); C is 1 or 3."""
    if pixels.ndim == 3:
        return pixels[:, np.newaxis]
    if pixels.ndim == 4 and pixels.shape[3] in _CHANNELS:
        return pixels.transpose(0, 3, 1, 2)
    if pixels.ndim == 4 and pixels.shape[1] in _CHANNELS:
        return pixels
    raise DatasetError(
        f"column {column!r}: expected images of shape (H, W), (H, W, C) or (C, H, W) with C 1 or "
        f"3, got {pixels.shape[1:]}"
    )
