"""What the tests of data share: small IDX files, written here."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

WriteIdx = Callable[[str, NDArray[np.uint8]], Path]


@pytest.fixture
def write_idx(tmp_path: Path) -> WriteIdx:
    """Write an array of bytes as an IDX file; a name that ends in .gz is compressed."""

    def write(name: str, array: NDArray[np.uint8]) -> Path:
        content = bytes([0, 0, 8, array.ndim])
        content += b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


@pytest.fixture
def small_folder(write_idx: WriteIdx, tmp_path: Path) -> Path:
    """Return a folder with 20 images to train on (.gz) and 10 to test on (plain).

    Image i is filled with the value i, and its label is i modulo 10.
    """
    for images, labels, count, suffix in (
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", 20, ".gz"),
        ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", 10, ""),
    ):
        values = np.arange(count, dtype=np.uint8)
        write_idx(images + suffix, np.tile(values[:, None, None], (1, 28, 28)))
        write_idx(labels + suffix, values % 10)
    return tmp_path
