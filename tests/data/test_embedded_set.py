"""The slice of Fashion-MNIST inside the package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from fedwaggle.data import fashion_mnist, fingerprint, load, to_examples
from fedwaggle.data.fashion_mnist import MINI_FOLDER
from fedwaggle.errors import DatasetError

FULL_FOLDER = Path("/usr/share/datasets/fashion-mnist")
SCRIPT = Path(__file__).parents[2] / "scripts" / "make_fashion_mnist_mini.py"
CONTENT = {"train": "6fd1f257357826c5", "test": "c2fd6cb41725cea8"}


@pytest.mark.parametrize(("split", "per_class"), [("train", 600), ("test", 100)])
def test_what_ships_is_what_was_made(split: str, per_class: int) -> None:
    """600 and 100 images of each class, 28 x 28, grey, with the known content."""
    examples = to_examples(load("fashion-mnist-mini", split))
    assert examples.features.shape[1:] == (1, 28, 28)
    assert examples.labels.bincount().tolist() == [per_class] * 10
    assert (examples.features.min(), examples.features.max()) == (0, 1)
    assert fingerprint(examples) == CONTENT[split]


def test_it_has_the_columns_of_the_set_on_the_hub() -> None:
    """Column image opens as a picture, column label knows its names."""
    train = load("fashion-mnist-mini", "train")
    assert train.column_names == ["image", "label"]
    assert train[0]["image"].mode == "L"
    assert train.features["label"].names[0] == "T-shirt/top"


def test_a_damaged_file_of_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut file, an archive of something else, and one that is no archive."""
    monkeypatch.setattr(fashion_mnist, "MINI_FOLDER", tmp_path)
    whole = (MINI_FOLDER / "test.npz").read_bytes()
    (tmp_path / "test.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"test.npz: cannot be read .* install fedwaggle"):
        load("fashion-mnist-mini", "test")
    np.savez_compressed(tmp_path / "train.npz", images=np.zeros((1, 28, 28), np.uint8))
    with pytest.raises(DatasetError, match=r"train.npz: cannot be read .*labels"):
        load("fashion-mnist-mini", "train")
    (tmp_path / "train.npz").write_bytes(b"GIF89a")
    with pytest.raises(DatasetError, match=r"train.npz: cannot be read"):
        load("fashion-mnist-mini", "train")


def test_its_licence_lies_beside_it() -> None:
    """The MIT licence with the authors' copyright goes where the files go, and they are small."""
    licence = (MINI_FOLDER / "LICENSE").read_text()
    assert "MIT License" in licence
    assert "2017 Zalando SE" in licence
    assert sum(path.stat().st_size for path in MINI_FOLDER.glob("*.npz")) < 3_100_000


@pytest.mark.skipif(not FULL_FOLDER.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_making_it_again_gives_the_same_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script, run on the full set, makes what ships."""
    spec = importlib.util.spec_from_file_location("make_fashion_mnist_mini", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(FULL_FOLDER, tmp_path)
    monkeypatch.setattr(fashion_mnist, "MINI_FOLDER", tmp_path)
    for split, content in CONTENT.items():
        assert fingerprint(to_examples(load("fashion-mnist-mini", split))) == content


def test_a_source_without_the_files_ends_the_script(tmp_path: Path) -> None:
    """The script says which folder lacks what, and writes nothing."""
    spec = importlib.util.spec_from_file_location("make_fashion_mnist_mini", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with pytest.raises(SystemExit, match="lacks the IDX files of the train split"):
        script.main(tmp_path, tmp_path / "made")
    assert list((tmp_path / "made").iterdir()) == []
