"""Columns of data sets as people store them, decoded without a guess or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as Pillow

from fedwaggle.data import to_examples
from fedwaggle.data.image_columns import decode_images, decode_labels
from fedwaggle.errors import DatasetError

GREY = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)  # one image, 2 high and 3 wide
RGB = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)  # 2 high and 4 wide


def images_of(column: object, feature: object = None, name: str = "image") -> torch.Tensor:
    features = Features({name: feature}) if feature else None
    return decode_images(Dataset.from_dict({name: column}, features=features))


def pictures(*modes: str, size: tuple[int, int] = (3, 2)) -> list[Pillow.Image]:
    return [Pillow.new(mode, size) for mode in modes]


@pytest.mark.parametrize("name", ["image", "img", "images", "pixel_values"])
def test_a_column_of_images_is_found_by_its_names(name: str) -> None:
    """Sets on the Hub name it differently."""
    assert images_of(GREY, name=name).tolist() == [[[[0, 1, 2], [3, 4, 5]]]]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY, GREY[:, np.newaxis]),  # (H, W)
        (RGB, RGB.transpose(0, 3, 1, 2)),  # (H, W, C)
        (RGB.transpose(0, 3, 1, 2), RGB.transpose(0, 3, 1, 2)),  # (C, H, W)
        (GREY[..., np.newaxis], GREY[:, np.newaxis]),  # (H, W, 1)
        (GREY.astype(np.int64), GREY[:, np.newaxis]),
    ],
)
def test_arrays_come_out_with_channels_first_as_bytes(
    array: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]
) -> None:
    """Whole numbers of any type are uint8 from 0 to 255."""
    decoded = images_of(array)
    assert decoded.dtype == torch.uint8
    np.testing.assert_array_equal(decoded.numpy(), expected)


def test_floats_are_kept_as_they_are() -> None:
    """Someone scaled them already: -0.5 stays -0.5, as float32."""
    decoded = images_of(np.array([[[-0.5, 2.0]]]))
    assert (decoded.dtype, decoded.tolist()) == (torch.float32, [[[[-0.5, 2.0]]]])


def test_files_are_decoded_grey_if_all_are_grey_and_else_in_colour() -> None:
    """Two greys have one channel; one palette image among them makes all RGB."""
    assert images_of(pictures("L", "1"), Image()).shape == (2, 1, 2, 3)
    assert images_of(pictures("L", "P", "RGBA"), Image()).shape == (3, 3, 2, 3)


@pytest.mark.parametrize(
    ("column", "feature", "said"),
    [
        (["a"], None, "expected images, got"),
        ([[[[0, 256]]]], None, "from 0 to 255, got 0 to 256"),
        ([[[[-1, 0]]]], None, "from 0 to 255, got -1 to 0"),
        ([np.zeros((1, 2)), np.zeros((2, 2))], List(List(Value("float32"))), "2 sizes"),
        (np.zeros((1, 2, 2, 2)), None, r"C 1 or 3, got \(2, 2, 2\)"),
        (np.zeros((1, 4)), None, r"got \(4,\)"),
        (pictures("I;16"), Image(), "8 bits a channel, got Pillow's modes I;16"),
        (pictures("L") + pictures("L", size=(2, 2)), Image(), "images of one size, got 2"),
    ],
)
def test_what_would_need_a_guess_is_refused(column: object, feature: object, said: str) -> None:
    """The error names the column and what would help."""
    with pytest.raises(DatasetError, match=said) as caught:
        images_of(column, feature)
    assert "column 'image'" in str(caught.value)


def test_labels_come_with_the_number_of_classes() -> None:
    """A ClassLabel knows it; for bare numbers the highest label says it."""
    named = Features({"label": ClassLabel(names=["a", "b", "c"])})
    labels = decode_labels(Dataset.from_dict({"label": [0, 1]}, features=named))
    assert (labels.dtype, labels.tolist()) == (torch.int64, [0, 1])
    assert decode_labels(Dataset.from_dict({"fine_label": [0, 7]})).tolist() == [0, 7]


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ({"label": ["cat"]}, "class_encode_column"),
        ({"label": [0.5]}, "expected labels as whole numbers"),
        ({"label": [[1, 0]]}, "expected labels as whole numbers"),
        ({"label": [0, -1]}, "expected labels from 0, got -1"),
        ({"z": [0]}, "no column of labels: expected one of label, .* got z"),
    ],
)
def test_labels_that_are_none_are_refused(column: dict[str, Any], said: str) -> None:
    """Texts, floats, one-hot lists, the -1 of hidden labels, and another name."""
    with pytest.raises(DatasetError, match=said):
        decode_labels(Dataset.from_dict(column))


def test_a_format_or_a_transform_of_the_user_changes_nothing() -> None:
    """The columns are read as they are stored."""
    data = Dataset.from_dict({"image": GREY, "label": [0]})
    formatted = data.with_format("torch").with_transform(lambda rows: {"label": rows["label"]})
    assert torch.equal(to_examples(formatted).features, to_examples(data).features)
