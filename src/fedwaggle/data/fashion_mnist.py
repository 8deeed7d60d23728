"""Fashion-MNIST: 28 x 28 grey pictures of clothes in ten classes, from local files.

Two forms: a slice inside this package, as NumPy's compressed archives, and the full set in the
four IDX files of its authors. Both are read into arrays, without ``datasets``, which takes a
second to import. :func:`to_dataset` gives them the columns that the set has on the Hub, so that
code written for one runs on the others. Nothing is written.

Reference: H. Xiao, K. Rasul, R. Vollgraf, arXiv:1708.07747.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedwaggle.data.idx import read_idx
from fedwaggle.errors import DatasetError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "CLASS_NAMES",
    "FILES",
    "MINI_FOLDER",
    "find_files",
    "read_files",
    "read_mini",
    "to_dataset",
]

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MINI_FOLDER = Path(__file__).parent / "fashion_mnist_mini"

_SIDE = 28


def read_mini(split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read a split of the embedded slice: 6,000 images to train on, or 1,000 to test on.

    Returns
    -------
    tuple[ndarray, ndarray]
        Images (N, 28, 28) uint8 and labels (N,) uint8 from 0 to 9.

    Raises
    ------
    DatasetError
        If the file in this package is damaged.
    """
    path = MINI_FOLDER / f"{split}.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return stored["images"], stored["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); install fedwaggle anew") from error


def find_files(folder: Path, split: str) -> tuple[Path, Path] | None:
    """Return the files of images and of labels of a split, or None if one of them is missing.

    A plain file goes before the same one with ``.gz``: it is read faster.
    """
    images, labels = (
        next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
        for name in FILES[split]
    )
    return None if images is None or labels is None else (images, labels)


def read_files(images_path: Path, labels_path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read and check a pair of IDX files.

    Returns
    -------
    tuple[ndarray, ndarray]
        Images (N, 28, 28) uint8 and labels (N,) uint8 from 0 to 9.

    Raises
    ------
    DatasetError
        If a file is damaged, or the two do not fit together. The message names the file.
    """
    images = read_idx(images_path, ndim=3)
    labels = read_idx(labels_path, ndim=1)
    if images.shape[1:] != (_SIDE, _SIDE):
        raise DatasetError(
            f"IDX file {images_path}: expected images of 28 x 28 pixels, got "
            f"{images.shape[1]} x {images.shape[2]}; is it a file of another set?"
        )
    if len(images) != len(labels):
        raise DatasetError(
            f"IDX file {labels_path}: expected {len(images)} labels, one for each image in "
            f"{images_path}, got {len(labels)}; take both files from the same source"
        )
    if labels.size and labels.max() >= len(CLASS_NAMES):
        raise DatasetError(
            f"IDX file {labels_path}: expected labels from 0 to {len(CLASS_NAMES) - 1}, "
            f"got {labels.max()}; is it a file of another set?"
        )
    return images, labels


def to_dataset(images: NDArray[np.uint8], labels: NDArray[np.integer[Any]]) -> Dataset:
    """Return images (N, 28, 28) and labels (N,) as the columns ``image`` and ``label``.

    Each image is stored as a PGM file, a line of header and the pixels: ``datasets`` would
    compress each as PNG, which takes seconds.
    """
    from datasets import ClassLabel, Dataset, Features, Image

    features = Features({"image": Image(), "label": ClassLabel(names=list(CLASS_NAMES))})
    header = f"P5 {_SIDE} {_SIDE} 255\n".encode()
    files = [{"bytes": header + image.tobytes(), "path": None} for image in images]
    columns = {"image": files, "label": labels.astype(np.int64)}
    return Dataset.from_dict(columns, features=features)
