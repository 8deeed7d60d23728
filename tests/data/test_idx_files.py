"""IDX files: what is whole is read, what is damaged is named."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fedwaggle.data.idx import read_idx
from fedwaggle.errors import DatasetError

WriteIdx = Callable[[str, NDArray[np.uint8]], Path]
SIX = np.arange(6, dtype=np.uint8)


@pytest.mark.parametrize("name", ["plain", "packed.gz"])
def test_a_file_is_read_back_as_it_was_written(write_idx: WriteIdx, name: str) -> None:
    """Six bytes of shape (3, 1, 2) come back the same, compressed or not."""
    array = SIX.reshape(3, 1, 2)
    np.testing.assert_array_equal(read_idx(write_idx(name, array), ndim=3), array)


def test_the_content_tells_whether_a_file_is_compressed(write_idx: WriteIdx) -> None:
    """A compressed file whose .gz was lost is still read."""
    path = write_idx("labels.gz", SIX)
    np.testing.assert_array_equal(read_idx(path.rename(path.with_suffix("")), ndim=1), SIX)


def test_an_empty_array_is_whole(write_idx: WriteIdx) -> None:
    """A header that says 0 labels, with nothing behind it, is a file of 0 labels."""
    assert read_idx(write_idx("none", SIX[:0]), ndim=1).shape == (0,)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "expected to begin with 00000801"),
        (b"\x00\x00\x08\x03\x00\x00\x00\x01", "got '00000803'"),  # images in place of labels
        (b"\x00\x00\x0d\x01\x00\x00\x00\x01\x07", "got '00000d01'"),  # floats
        (b"\x00\x00\x08\x01\x00\x00", "ends inside its header, at byte 6"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x03\x07\x07", r"expected 3 bytes .* got 2"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x01\x07\x07", r"expected 1 bytes .* got 2"),
        (b"\x00\x00\x08\x01\xff\xff\xff\xff\x07", r"expected 4294967295 bytes .* got 1"),
        (gzip.compress(SIX.tobytes(), mtime=0)[:-9], "cannot be read"),  # cut
        (b"\x1f\x8b\x00nonsense", "cannot be read"),
        (gzip.compress(SIX.tobytes(), mtime=0)[:10] + b"\xff" * 20, "cannot be read"),  # bad stream
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    """The error names the file, what was expected and what came."""
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=reason) as caught:
        read_idx(path, ndim=1)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    """A path that leads nowhere is an error of ours, not of the system."""
    with pytest.raises(DatasetError, match=r"absent: cannot be read \(.*No such file"):
        read_idx(tmp_path / "absent", ndim=1)
