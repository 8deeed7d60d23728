"""A data set by its name: the order of the places, and what is said when there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from numpy.typing import NDArray

from fedwaggle.data import fingerprint, load, load_images, sources, to_examples
from fedwaggle.errors import ConfigError, DatasetError
from waiting import PATIENCE

WriteIdx = Callable[[str, NDArray[np.uint8]], Path]
FULL_FOLDER = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture
def no_debian_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Look for Debian's package where it is not."""
    monkeypatch.setattr(sources, "_DEBIAN_FOLDER", tmp_path / "not-installed")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch the Hub off, as HF_HUB_OFFLINE=1 does at start."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def test_local_files_become_a_data_set(small_folder: Path) -> None:
    """Image 13 of 20 is filled with 13 and has the label 3, a Sneaker is class 7."""
    train = load("fashion-mnist", "train", data_dir=small_folder)
    assert len(train) == 20
    assert train[13]["label"] == 3
    assert train[13]["image"].size == (28, 28)
    assert set(np.asarray(train[13]["image"]).flat) == {13}
    assert train.features["label"].int2str(7) == "Sneaker"


def test_the_test_split_has_its_own_files(small_folder: Path) -> None:
    """The files that begin with t10k hold 10 images."""
    assert len(load("fashion-mnist", "test", data_dir=str(small_folder))) == 10


def test_a_folder_of_the_user_goes_before_the_package_of_debian(
    small_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no folder named (None, or the empty config value) the package's is read."""
    monkeypatch.setattr(sources, "_DEBIAN_FOLDER", small_folder)
    assert len(load("fashion-mnist", "train")) == 20
    assert len(load("fashion-mnist", "train", data_dir="")) == 20
    with pytest.raises(DatasetError):
        load("fashion-mnist", "train", data_dir=small_folder / "elsewhere")


def test_a_plain_file_goes_before_the_compressed_one(
    small_folder: Path, write_idx: WriteIdx
) -> None:
    """A plain file of labels that are all 5 hides the compressed one."""
    write_idx("train-labels-idx1-ubyte", np.full(20, 5, np.uint8))
    assert set(load("fashion-mnist", "train", data_dir=small_folder)["label"]) == {5}


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("t10k-labels-idx1-ubyte", np.zeros(9, np.uint8), "expected 10 labels, .* got 9"),
        ("t10k-labels-idx1-ubyte", np.full(10, 26, np.uint8), "labels from 0 to 9, got 26"),
        ("t10k-images-idx3-ubyte", np.zeros((10, 32, 32), np.uint8), "28 x 28 .* got 32 x 32"),
        ("t10k-images-idx3-ubyte", np.zeros(10, np.uint8), "expected to begin with 00000803"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name(
    small_folder: Path, write_idx: WriteIdx, name: str, array: NDArray[np.uint8], reason: str
) -> None:
    """Counts that differ, labels past 9 and images of another size are errors."""
    path = write_idx(name, array)
    with pytest.raises(DatasetError, match=reason) as caught:
        load("fashion-mnist", "test", data_dir=small_folder)
    assert str(path) in str(caught.value)


@pytest.mark.usefixtures("no_debian_package", "offline")
def test_a_set_that_cannot_be_had_names_every_way_to_get_it() -> None:
    """No folder, no package, no network: the four ways are listed."""
    with pytest.raises(DatasetError) as caught:
        load("fashion-mnist", "train")
    said = str(caught.value)
    for way in (
        "not-installed lacks train-images-idx3-ubyte or train-labels-idx1-ubyte",
        "'fashion-mnist-mini'",
        "data-dir",
        "t10k-images-idx3-ubyte",
        "apt install dataset-fashion-mnist",
        "zalando-datasets/fashion_mnist",
        "HF_HUB_OFFLINE is set",
    ):
        assert way in said


def test_a_hub_out_of_reach_is_told_within_seconds() -> None:
    """Nothing listens at the Hub's address: one question, no retries for half a minute."""
    code = (
        "from fedwaggle.data.hub import load_from_hub; load_from_hub('someone/some-set', 'train')"
    )
    online = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | online,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert "the Hub gave no answer for 'someone/some-set'" in run.stderr
    assert "set HF_HUB_OFFLINE=1 if a copy lies in its cache" in run.stderr


def test_a_folder_without_the_files_is_an_error_even_where_another_source_exists(
    small_folder: Path,
) -> None:
    """A folder with the images but not the labels is refused, and named in full."""
    (small_folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DatasetError, match="lacks train-images-idx3-ubyte or") as caught:
        load("fashion-mnist", "train", data_dir=small_folder)
    assert str(small_folder) in str(caught.value)


@pytest.mark.usefixtures("offline")
def test_an_unknown_name_names_the_known_ones() -> None:
    """A slip in the name leads to the Hub, and its error says what there is."""
    with pytest.raises(DatasetError, match=r"(?s)'fashion-mnits': .*'fashion-mnist-mini'"):
        load("fashion-mnits", "train")


def test_arguments_that_do_not_go_together_are_told_at_once() -> None:
    """A wrong split and a folder for a set that is not read from one: two mistakes."""
    with pytest.raises(ConfigError) as caught:
        load("fashion-mnist-mini", "valid", data_dir="/data")
    assert caught.value.mistakes == (
        "split: expected 'train' or 'test', got 'valid'",
        "data-dir: only dataset 'fashion-mnist' is read from a folder, got '/data' with dataset "
        "'fashion-mnist-mini'; leave data-dir empty",
    )


@pytest.mark.skipif(not FULL_FOLDER.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_the_full_set_of_debian_is_whole() -> None:
    """60,000 and 10,000 images, each class equally often, with the known content."""
    for split, per_class, content in (
        ("train", 6000, "b7f434381a31995c"),
        ("test", 1000, "3c9f1eb94de6d799"),
    ):
        assert len(load("fashion-mnist", split, data_dir=FULL_FOLDER)) == 10 * per_class
        examples = to_examples(load_images("fashion-mnist", split, data_dir=FULL_FOLDER))
        assert examples.labels.bincount().tolist() == [per_class] * 10
        assert fingerprint(examples) == content
