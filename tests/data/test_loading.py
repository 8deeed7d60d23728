"""A client's share as tensors: the right rows, decoded right, at the price of a look-up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from fedwaggle.data import hub, load, load_partition, load_split, to_tensors
from fedwaggle.data.partition_spec import PARTITIONERS
from fedwaggle.errors import ConfigError


def test_the_short_way_gives_what_the_data_set_gives(small_folder: Path) -> None:
    """Arrays straight from the files are bit for bit the decoded ``datasets.Dataset``."""
    for name, split, data_dir in (
        ("fashion-mnist-mini", "train", None),
        ("fashion-mnist-mini", "test", None),
        ("fashion-mnist", "train", small_folder),
        ("fashion-mnist", "test", small_folder),
    ):
        short = load_split(name, split, data_dir=data_dir)
        long = to_tensors(load(name, split, data_dir=data_dir))
        assert torch.equal(short.images, long.images)
        assert torch.equal(short.labels, long.labels)
        assert (short.labels.dtype, short.num_classes) == (torch.int64, long.num_classes)


@pytest.mark.parametrize("partitioner", PARTITIONERS)
def test_the_shares_together_are_the_split(partitioner: str) -> None:
    """Ten shares of the 1,000 test images: the sum of all pixels and each class's 100."""
    whole = load_split("fashion-mnist-mini", "test")
    shares = [
        load_partition("fashion-mnist-mini", part, 10, split="test", partitioner=partitioner)
        for part in range(10)
    ]
    labels = torch.cat([share.labels for share in shares])
    assert labels.bincount().tolist() == [100] * 10
    pixels = torch.cat([share.images for share in shares]).double()
    assert pixels.sum() == pytest.approx(float(whole.images.double().sum()))
    assert all(share.num_classes == 10 for share in shares)


def test_images_keep_their_labels() -> None:
    """Every image of a share is found in the split, with the same label."""
    whole = load_split("fashion-mnist-mini", "test")
    label_of = {
        image.numpy().tobytes(): label
        for image, label in zip(whole.images, whole.labels.tolist(), strict=True)
    }
    share = load_partition("fashion-mnist-mini", 3, 10, split="test", partitioner="dirichlet")
    for image, label in zip(share.images, share.labels.tolist(), strict=True):
        assert label_of[image.numpy().tobytes()] == label


def test_what_comes_back_is_a_copy() -> None:
    """A client that scribbles on its images harms neither the next call nor its neighbours."""
    for ask in (
        lambda: load_partition("fashion-mnist-mini", 0, 10, split="test"),
        lambda: load_split("fashion-mnist-mini", "test"),
    ):
        first = ask()
        before = first.images.clone()
        first.images.fill_(7)
        first.labels.fill_(7)
        assert torch.equal(ask().images, before)
        assert ask().labels.unique().numel() == 10


def test_a_set_of_the_hub_goes_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes as a ``datasets.Dataset``; four colour images for two clients."""
    pixels = np.arange(4 * 2 * 5 * 3, dtype=np.uint8).reshape(4, 2, 5, 3)
    data = Dataset.from_dict({"img": pixels, "label": [0, 1, 2, 3]})
    monkeypatch.setattr(hub, "load_from_hub", lambda name, split: data)
    shares = [load_partition("someone/some-set", part, 2) for part in (0, 1)]
    assert [share.image_shape for share in shares] == [(3, 2, 5)] * 2
    assert sorted(torch.cat([share.labels for share in shares]).tolist()) == [0, 1, 2, 3]
    assert [share.num_classes for share in shares] == [4, 4]


def test_a_client_that_does_not_exist_is_refused() -> None:
    """Partition 10 of 10, and a partition id that is no number."""
    for bad in (10, -1, True, "0"):
        with pytest.raises(ConfigError, match="partition-id: expected a whole number from 0 to 9"):
            load_partition("fashion-mnist-mini", bad, 10)  # type: ignore[arg-type]


def test_the_default_path_imports_nothing_heavy() -> None:
    """Between start and first step there is no time for ``datasets``, pandas or matplotlib."""
    code = (
        "from fedwaggle.data import load_partition, load_split, fingerprint;"
        "load_partition('fashion-mnist-mini', 0, 10);"
        "fingerprint(load_split('fashion-mnist-mini', 'test'));"
        "import sys; print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"datasets", "flwr_datasets", "pandas", "matplotlib", "seaborn", "scipy", "flwr"}
    assert heavy.isdisjoint(loaded)
