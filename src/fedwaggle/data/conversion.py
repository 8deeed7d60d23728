"""What ``load_data`` may return, as examples of one split that can be divided by rows.

A pair of arrays or tensors, a data set of Hugging Face, a data frame of pandas and a torch
``Dataset`` are taken. Which kind it is, is seen by its type; ``datasets`` and pandas are imported
only if the user's code has imported them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, TensorDataset

from fedwaggle.data.columns import IMAGE_COLUMNS, LABEL_COLUMNS
from fedwaggle.data.examples import (
    Examples,
    ItemExamples,
    TensorExamples,
    as_float,
    as_label_tensor,
)
from fedwaggle.errors import DatasetError

__all__ = ["Split", "to_examples", "to_split"]

_KINDS = (
    "a pair (x, y) of arrays or tensors, a datasets.Dataset, a pandas.DataFrame, or a torch Dataset"
)


@dataclass(frozen=True)
class Split:
    """All examples of a split.

    Attributes
    ----------
    examples : TensorExamples | ItemExamples
        All of them; features may still be bytes.
    groups : Mapping[str, ndarray]
        Columns (N,) that the split may be divided by, beside the labels.
    """

    examples: TensorExamples | ItemExamples
    groups: Mapping[str, NDArray[Any]]

    def select(self, rows: NDArray[np.int64] | None = None) -> Examples:
        """Return the examples of some rows, or all of them: a copy."""
        if isinstance(self.examples, TensorExamples):
            features, labels = self.examples.features, self.examples.labels
            if rows is None:
                # A float is already what as_float would make: only a clone is a copy for certain.
                return TensorExamples(as_float(features.clone()), labels.clone())
            index = torch.from_numpy(rows)
            return TensorExamples(as_float(features[index]), labels[index])
        if rows is None:
            return self.examples
        return ItemExamples(self.examples.items, self.examples.rows[torch.from_numpy(rows)])

    def classes(self) -> NDArray[np.int64] | None:
        """Return the labels (N,) if they are classes and known without reading every item."""
        if isinstance(self.examples, ItemExamples) and self.examples.listed_labels() is None:
            return None
        labels = self.labels()
        return labels if labels.ndim == 1 and labels.dtype.kind == "i" else None

    def labels(self) -> NDArray[Any]:
        """Return the labels, (N, ...). Those of a torch ``Dataset`` may cost a pass over it."""
        if isinstance(self.examples, TensorExamples):
            return self.examples.labels.numpy()
        listed = self.examples.listed_labels()
        if listed is None:
            items = self.examples.items
            read = [items[int(row)][1] for row in self.examples.rows]
            listed = as_label_tensor(_stacked(read))
        return listed.numpy()


def to_examples(data: Any) -> Examples:  # noqa: ANN401  # any of _KINDS
    """Convert what a ``load_data`` may return into examples; see :func:`to_split`.

    Raises
    ------
    DatasetError
        If it cannot be converted.

    Examples
    --------
    >>> import numpy as np
    >>> examples = to_examples((np.array([[0.5], [1.5]]), np.array([1, 0])))
    >>> examples.features.dtype, examples.labels
    (torch.float32, tensor([1, 0]))
    """
    return to_split(data).select()


def to_split(data: Any, *, partition_by: str = "") -> Split:  # noqa: ANN401  # any of _KINDS
    """Convert what a ``load_data`` returned.

    Parameters
    ----------
    data : tuple | datasets.Dataset | pandas.DataFrame | torch.utils.data.Dataset | Examples
        The examples of one split. In a data set of Hugging Face and in a data frame, the labels
        are the column ``label``, ``target`` or another of ``LABEL_COLUMNS``. The features are the
        images if there is a column of images; else all other columns, which must be numbers.
        uint8 features are pixels: they are divided by 255 when they are used.
    partition_by : str (default: "")
        A column that the split is divided by; it is no feature.

    Raises
    ------
    DatasetError
        If it is something else, or a column is missing or holds no numbers.
    """
    if isinstance(data, TensorExamples | ItemExamples):
        return Split(data, {})
    if isinstance(data, tuple | list) and len(data) == 2:
        features, labels = data
        return Split(TensorExamples(_features(features), as_label_tensor(_stacked(labels))), {})
    if isinstance(data, TensorDataset) and len(data.tensors) == 2:
        return to_split(data.tensors)
    if _is_a(data, "datasets", "Dataset"):
        return _from_hugging_face(data, partition_by)
    if _is_a(data, "pandas", "DataFrame"):
        columns = {str(name): np.asarray(data[name].to_numpy()) for name in data.columns}
        return _from_columns(columns, partition_by)
    if not isinstance(data, tuple | list | str | Mapping | IterableDataset) and _has_items(data):
        return Split(ItemExamples(data, torch.arange(len(data))), {})
    kind = f"{type(data).__module__}.{type(data).__qualname__}".removeprefix("builtins.")
    hint = "; return one of its splits" if isinstance(data, Mapping) else ""
    raise DatasetError(f"load_data: expected {_KINDS}, got {kind}{hint}")


def _is_a(data: object, package: str, name: str) -> bool:
    """Return whether it is of a package's class, without importing the package."""
    module = sys.modules.get(package)
    return module is not None and isinstance(data, getattr(module, name))


def _has_items(data: object) -> bool:
    return hasattr(data, "__len__") and hasattr(data, "__getitem__")


def _features(values: Any) -> Tensor:  # noqa: ANN401  # an array, a tensor or a nested list
    """Return features (N, ...) as a tensor of numbers."""
    if isinstance(values, Tensor):
        return values
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise DatasetError(
            f"features: expected numbers, got an array of {array.dtype}; encode them in load_data"
        )
    # A copy, since what was read from a file may be read-only, and a tensor never is.
    return torch.tensor(_signed(array) if array.itemsize > 1 else array)


def _stacked(labels: Any) -> Any:  # noqa: ANN401  # a sequence of numbers, or an array
    """Return labels in a form that torch reads; what holds no numbers is returned as it is."""
    if isinstance(labels, Tensor):
        return labels
    array = np.asarray(labels)
    return torch.tensor(_signed(array)) if array.dtype.kind in "biuf" else labels


def _signed(array: NDArray[Any]) -> NDArray[Any]:
    """Return unsigned whole numbers as int64: torch does not calculate with their wider types."""
    return array.astype(np.int64) if array.dtype.kind == "u" else array


def _from_hugging_face(dataset: Any, partition_by: str) -> Split:  # noqa: ANN401  # datasets.Dataset
    from fedwaggle.data.image_columns import column_values, decode_images, decode_labels

    names = dataset.column_names
    if not any(name in names for name in IMAGE_COLUMNS):
        plain = dataset.with_format("numpy")[:]
        return _from_columns({name: np.asarray(plain[name]) for name in names}, partition_by)
    groups = {}
    if partition_by in names:
        groups[partition_by] = np.asarray(column_values(dataset, partition_by, "numpy"))
    return Split(TensorExamples(decode_images(dataset), decode_labels(dataset)), groups)


def _from_columns(columns: Mapping[str, NDArray[Any]], partition_by: str) -> Split:
    """Return the split of a table: one column of labels, and the others as features."""
    label = next((name for name in LABEL_COLUMNS if name in columns), None)
    if label is None:
        raise DatasetError(
            f"no column of labels: expected one of {', '.join(LABEL_COLUMNS)}, got "
            f"{', '.join(columns)}; rename the column, or return (x, y) from load_data"
        )
    groups = {partition_by: columns[partition_by]} if partition_by in columns else {}
    names = [name for name in columns if name not in (label, partition_by)]
    bad = [name for name in names if columns[name].dtype.kind not in "biuf"]
    if bad:
        raise DatasetError(
            f"features: expected columns of numbers, but {', '.join(bad)} "
            f"{'holds' if len(bad) == 1 else 'hold'} something else; encode or drop "
            f"{'it' if len(bad) == 1 else 'them'} in load_data, or return (x, y)"
        )
    if not names:
        raise DatasetError(f"expected columns of features beside {label!r}, got none")
    return Split(
        TensorExamples(_table([columns[name] for name in names]), _label_column(columns, label)),
        groups,
    )


def _table(columns: Sequence[NDArray[Any]]) -> Tensor:
    """Return the features (N, F) of F columns; one column alone keeps its type and its shape."""
    if len(columns) == 1 and columns[0].ndim > 1:
        return _features(columns[0])
    return torch.tensor(np.stack([column.astype(np.float32) for column in columns], axis=1))


def _label_column(columns: Mapping[str, NDArray[Any]], label: str) -> Tensor:
    if columns[label].dtype.kind not in "biuf":
        raise DatasetError(
            f"column {label!r}: expected numbers, got {columns[label].dtype}; give each class a "
            "number in load_data, the same one in every split"
        )
    return as_label_tensor(_stacked(columns[label]))
