"""Examples: batches, what a torch ``Dataset`` gives, and the fingerprint of a content."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from torch.utils.data import DataLoader

from fedwaggle.data import TensorExamples, fingerprint, to_examples
from fedwaggle.data.examples import ItemExamples
from fedwaggle.errors import ConfigError, DatasetError

TWO = Dataset.from_dict(
    {
        "image": np.array([[[0, 51], [102, 255]], [[0, 0], [0, 0]]], np.uint8),
        "label": [1, 0],
    }
)
TEN = TensorExamples(torch.arange(10.0)[:, None], torch.arange(10))


class Squares:
    """Items in the style of a torch ``Dataset``: i and its square."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[list[float], int]:
        return [float(index)], index**2


def order_of(batches) -> list[int]:
    return torch.cat([y for _, y in batches]).tolist()


def test_bytes_become_floats_from_0_to_1() -> None:
    """51 / 255 is 0.2; two grey images of 2 x 2 have one channel."""
    examples = to_examples(TWO)
    assert (len(examples), examples.features.shape) == (2, (2, 1, 2, 2))
    torch.testing.assert_close(examples[0][0], torch.tensor([[[0.0, 0.2], [0.4, 1.0]]]))
    assert examples.labels.tolist() == [1, 0]


@pytest.mark.parametrize("examples", [TEN, ItemExamples(Squares(), torch.arange(10))])
def test_every_example_is_in_one_batch_and_the_last_batch_is_what_is_left(examples) -> None:
    """10 in batches of 4: 4, 4 and 2; or 4 and 4 with ``drop_last``."""
    batches = examples.batches(4, seed=0)
    assert [len(y) for _, y in batches] == [4, 4, 2]
    assert len(batches) == 3
    assert sorted(order_of(batches)) == sorted(y for _, y in examples)
    full = examples.batches(4, seed=0, drop_last=True)
    assert [len(y) for _, y in full] == [4, 4]
    assert len(full) == 2


def test_features_go_with_their_labels() -> None:
    for x, y in TEN.batches(3, seed=5):
        assert torch.equal(x[:, 0], y.float())


def test_the_seed_decides_the_order_and_each_epoch_has_another() -> None:
    def two_epochs(seed: int) -> list[list[int]]:
        batches = TEN.batches(4, seed=seed)
        return [order_of(batches), order_of(batches)]

    assert two_epochs(1) == two_epochs(1)
    assert two_epochs(1) != two_epochs(2)
    assert two_epochs(1)[0] != two_epochs(1)[1]
    assert order_of(TEN.batches(4)) == list(range(10))


def test_a_data_loader_takes_them_too() -> None:
    """``DataLoader`` without shuffling gives what the batches give."""
    theirs = list(DataLoader(TEN, batch_size=4))
    for (x, y), (their_x, their_y) in zip(TEN.batches(4), theirs, strict=True):
        assert torch.equal(x, their_x)
        assert torch.equal(y, their_y)


def test_a_batch_of_nothing_is_refused() -> None:
    """The error has the config key's name, and comes at once."""
    with pytest.raises(ConfigError, match="batch-size: expected at least 1, got 0"):
        TEN.batches(0)
    with pytest.raises(ConfigError, match="batch-size: expected at most 10, the examples of this"):
        TEN.batches(11, drop_last=True)


def test_features_without_labels_are_refused() -> None:
    with pytest.raises(DatasetError, match="got 3 features and 2 labels"):
        TensorExamples(torch.zeros(3, 1), torch.zeros(2))


def test_items_are_made_anew_in_each_epoch() -> None:
    """A random transform of a torch ``Dataset`` draws again."""

    class Noise(Squares):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return torch.rand(1), index

    batches = ItemExamples(Noise(), torch.arange(10)).batches(10)
    ((first, _),), ((second, _),) = batches, batches
    assert not torch.equal(first, second)


def test_images_of_pillow_become_tensors_of_channels_first() -> None:
    """As torchvision's sets give them without a transform: colour (H, W, 3), grey (H, W)."""

    class Pictures:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            return Image.new(("RGB", "L")[self.mode], (5, 4), 255 if self.mode else "red"), index

        mode = 0

    colour = ItemExamples(Pictures(), torch.arange(2))
    x, y = colour.take(torch.tensor([1, 0]))
    assert (x.shape, x[0, :, 0, 0].tolist(), y.tolist()) == ((2, 3, 4, 5), [1, 0, 0], [1, 0])
    grey = Pictures()
    grey.mode = 1
    assert ItemExamples(grey, torch.arange(2))[0][0].shape == (1, 4, 5)


def test_items_that_are_no_pairs_are_refused() -> None:
    examples = ItemExamples([{"x": 1}], torch.arange(1))
    with pytest.raises(DatasetError, match=r"expected a dataset of pairs \(x, y\), got items of"):
        examples[0]


def test_a_fingerprint_is_that_of_the_content() -> None:
    """The same however it is stored; another with a pixel, a label, the order or the shape."""
    examples = to_examples(TWO)
    images, labels = examples.features, examples.labels
    assert fingerprint(examples) == "f1208808bbb34c62"
    other = [
        TensorExamples(images + torch.eye(2) / 255, labels),
        TensorExamples(images, labels.flip(0)),
        TensorExamples(images.flip(0), labels.flip(0)),
        TensorExamples(images.reshape(2, 1, 1, 4), labels),
    ]
    assert len({fingerprint(each) for each in [examples, *other]}) == 5
    transposed = TensorExamples(images.transpose(2, 3).contiguous().transpose(2, 3), labels)
    assert fingerprint(transposed) == fingerprint(examples)


def test_a_fingerprint_of_items_is_that_of_their_rows_and_labels() -> None:
    """Transforms may be random, so that the items themselves would differ each time."""

    class Listed(Squares):
        targets = (0, 1) * 5

    class Other(Squares):
        targets = (1, 0) * 5

    all_rows, some = torch.arange(10), torch.arange(5)
    marks = [
        fingerprint(ItemExamples(Listed(), all_rows)),
        fingerprint(ItemExamples(Listed(), some)),
        fingerprint(ItemExamples(Other(), all_rows)),
    ]
    assert len(set(marks)) == 3
    assert fingerprint(ItemExamples(Listed(), all_rows)) == marks[0]
