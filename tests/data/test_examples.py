"""Tensors: pixels, batches, and the fingerprint of a content."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset

from fedwaggle.data import Examples, batches, fingerprint, to_tensors
from fedwaggle.errors import ConfigError

TWO = Dataset.from_dict(
    {
        "image": np.array([[[0, 51], [102, 255]], [[0, 0], [0, 0]]], np.uint8),
        "label": [1, 0],
    }
)


def test_bytes_become_floats_from_0_to_1() -> None:
    """51 / 255 is 0.2; two grey images of 2 x 2 have one channel."""
    examples = to_tensors(TWO)
    assert (len(examples), examples.image_shape, examples.num_classes) == (2, (1, 2, 2), 2)
    torch.testing.assert_close(examples.images[0], torch.tensor([[[0.0, 0.2], [0.4, 1.0]]]))
    assert examples.labels.tolist() == [1, 0]


def test_every_index_is_in_one_batch_and_the_last_batch_is_what_is_left() -> None:
    """10 in batches of 4: 4, 4 and 2."""
    parts = list(batches(10, 4, torch.Generator().manual_seed(0)))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert sorted(torch.cat(parts).tolist()) == list(range(10))
    assert list(batches(0, 4, torch.Generator())) == []


def test_the_generator_decides_the_order_and_goes_on() -> None:
    """The same seed gives the same two epochs; the second is not the first again."""

    def two_epochs(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return [torch.cat(list(batches(50, 8, generator))).tolist() for _ in range(2)]

    assert two_epochs(1) == two_epochs(1)
    assert two_epochs(1) != two_epochs(2)
    assert two_epochs(1)[0] != two_epochs(1)[1]


def test_a_batch_of_nothing_is_refused() -> None:
    """The error has the config key's name, and comes at once."""
    with pytest.raises(ConfigError, match="batch-size: expected at least 1, got 0"):
        batches(10, 0, torch.Generator())


def test_a_fingerprint_is_that_of_the_content() -> None:
    """The same however it is stored; another with a pixel, a label, the order or the shape."""
    examples = to_tensors(TWO)
    images, labels = examples.images, examples.labels
    assert fingerprint(TWO) == fingerprint(examples) == "f1208808bbb34c62"
    other = [
        Examples(images + torch.eye(2) / 255, labels, 2),
        Examples(images, labels.flip(0), 2),
        Examples(images.flip(0), labels.flip(0), 2),
        Examples(images.reshape(2, 1, 1, 4), labels, 2),
    ]
    assert len({fingerprint(each) for each in [examples, *other]}) == 5
    transposed = Examples(images.transpose(2, 3).contiguous().transpose(2, 3), labels, 2)
    assert fingerprint(transposed) == fingerprint(examples)
