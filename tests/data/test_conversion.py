"""What ``load_data`` may return: each kind gives the same examples, and others are refused."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset, DatasetDict
from torch.utils.data import IterableDataset, TensorDataset

from fedwaggle.data import to_examples
from fedwaggle.data.conversion import to_split
from fedwaggle.data.examples import ItemExamples
from fedwaggle.errors import DatasetError

FEATURES = np.array([[0.5, 1.0], [1.5, 2.0], [2.5, 3.0]])
LABELS = np.array([2, 0, 1])
COLUMNS = {"width": FEATURES[:, 0], "height": FEATURES[:, 1], "label": LABELS}


@pytest.mark.parametrize(
    "data",
    [
        (FEATURES, LABELS),
        [FEATURES.tolist(), LABELS.tolist()],
        (torch.tensor(FEATURES), torch.tensor(LABELS)),
        (FEATURES.astype(np.float16), LABELS.astype(np.uint16)),
        TensorDataset(torch.tensor(FEATURES), torch.tensor(LABELS)),
        pd.DataFrame(COLUMNS),
        Dataset.from_dict(COLUMNS),
        Dataset.from_dict(COLUMNS).with_format("torch"),
        to_examples((FEATURES, LABELS)),
    ],
    ids=lambda data: type(data).__name__,
)
def test_every_kind_gives_float32_features_and_int64_labels(data: object) -> None:
    examples = to_examples(data)
    assert examples.features.dtype == torch.float32
    assert examples.labels.dtype == torch.int64
    assert examples.features.tolist() == FEATURES.tolist()
    assert examples.labels.tolist() == LABELS.tolist()


def test_values_stay_values_and_tokens_stay_tokens() -> None:
    """Regression has float32 labels, and a language model int64 features and labels (N, T)."""
    assert to_examples((FEATURES, [0.5, 1.5, 2.5])).labels.dtype == torch.float32
    tokens = np.arange(12).reshape(3, 4)
    examples = to_examples((tokens, tokens + 1))
    assert (examples.features.dtype, examples.labels.shape) == (torch.int64, (3, 4))
    listed = Dataset.from_dict({"input_ids": tokens.tolist(), "label": [0, 1, 0]})
    assert to_examples(listed).features.tolist() == tokens.tolist()


def test_a_torch_dataset_stays_one() -> None:
    class Lines(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            return FEATURES[index], int(LABELS[index])

    split = to_split(Lines())
    assert split.labels().tolist() == LABELS.tolist()
    second = split.select(np.array([1]))
    assert isinstance(second, ItemExamples)
    assert [(x.tolist(), int(y)) for x, y in second] == [([1.5, 2.0], 0)]


def test_the_column_to_divide_by_is_no_feature() -> None:
    for data in (
        pd.DataFrame({**COLUMNS, "site": ["a", "b", "a"]}),
        Dataset.from_dict({**COLUMNS, "site": ["a", "b", "a"]}),
    ):
        split = to_split(data, partition_by="site")
        assert split.groups["site"].tolist() == ["a", "b", "a"]
        assert split.examples.features.shape == (3, 2)


class Stream(IterableDataset):
    """A data set without a length or an index."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "load_data: expected a pair .* got NoneType"),
        ("train.csv", "got str"),
        (DatasetDict(train=Dataset.from_dict(COLUMNS)), "DatasetDict; return one of its splits"),
        (Stream(), "Stream"),
        (
            (FEATURES, ["cat", "dog", "cat"]),
            "labels: expected numbers, .* give each class a num",
        ),
        ((np.array(["a", "b"]), [0, 1]), "features: expected numbers"),
        ((FEATURES, LABELS[:2]), "got 3 features and 2 labels"),
        (pd.DataFrame({"a": [1.0]}), "no column of labels: expected one of label, .* got a;"),
        (pd.DataFrame({"label": [1]}), "expected columns of features beside 'label', got none"),
        (
            pd.DataFrame({"a": ["x"], "b": ["y"], "label": [1]}),
            "but a, b hold something else; encode or drop them in load_data",
        ),
        (pd.DataFrame({"a": [1.0], "y": ["cat"]}), "column 'y': expected numbers, got object"),
    ],
)
def test_what_cannot_be_examples_is_refused_with_what_would_help(data: object, reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        to_examples(data)
