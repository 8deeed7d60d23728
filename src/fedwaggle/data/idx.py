"""The IDX file format: one array of unsigned bytes behind a short header.

The header holds two zero bytes, the type code 8 (unsigned byte), the number of dimensions,
and then each dimension as a big-endian 32-bit number. Whatever does not fit is refused with
the name of the file: a damaged file never becomes data.

Reference: Y. LeCun, C. Cortes, C. Burges, the MNIST database, section "file formats".
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedwaggle.errors import DatasetError

__all__ = ["read_idx"]

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08


def read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """Read one IDX file, plain or compressed by gzip.

    Parameters
    ----------
    path : Path
        The file. Its content decides whether it is compressed, not its name.
    ndim : int
        How many dimensions it must have: 3 for images, 1 for labels.

    Returns
    -------
    ndarray
        uint8, read-only, of the shape that the header states.

    Raises
    ------
    DatasetError
        If the file cannot be read, is no IDX file of bytes with ``ndim`` dimensions, or holds
        more or fewer bytes than its header states. The message names the file.
    """
    content = _read(path)
    magic = bytes([0, 0, _UNSIGNED_BYTE, ndim])
    header_bytes = 4 + 4 * ndim
    if content[:4] != magic:
        raise _damaged(path, f"expected to begin with {magic.hex()}, got {content[:4].hex()!r}")
    if len(content) < header_bytes:
        raise _damaged(path, f"ends inside its header, at byte {len(content)}")
    shape = [int(size) for size in np.frombuffer(content, ">u4", count=ndim, offset=4)]
    expected, held = math.prod(shape), len(content) - header_bytes
    if held != expected:
        raise _damaged(path, f"expected {expected} bytes for the shape {shape}, got {held}")
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape)


def _read(path: Path) -> bytes:
    """Return the bytes of a file, decompressed if they were compressed."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(_GZIP_MAGIC) else content
    except (OSError, EOFError, zlib.error) as error:  # BadGzipFile is an OSError
        raise _damaged(path, f"cannot be read ({error})") from error


def _damaged(path: Path, reason: str) -> DatasetError:
    return DatasetError(f"IDX file {path}: {reason}; fetch the file anew")
