"""PGM files: grey images as a line of header and their pixels, as they are.

Any reader of images opens such a file. Where many of one size are stored together, one view of
their bytes takes the place of a call for each image.

Reference: Netpbm, the PGM format: https://netpbm.sourceforge.net/doc/pgm.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["decode_pgm", "encode_pgm"]

_HEADER = re.compile(rb"P5 (\d+) (\d+) 255\n")


def encode_pgm(images: NDArray[np.uint8]) -> list[bytes]:
    """Return one file for each of the images (N, H, W)."""
    _, height, width = images.shape
    header = f"P5 {width} {height} 255\n".encode()
    return [header + image.tobytes() for image in images]


def decode_pgm(files: Sequence[bytes | None]) -> NDArray[np.uint8] | None:
    """Return the images (N, H, W) in files of one size, or None if they are something else.

    Examples
    --------
    >>> decode_pgm(encode_pgm(np.array([[[1, 2, 3]]], np.uint8))).tolist()
    [[[1, 2, 3]]]
    >>> decode_pgm([b"a file of another kind"]) is None
    True
    """
    header = _HEADER.match(files[0] or b"") if files else None
    if header is None:
        return None
    start, length = header.group(), len(files[0] or b"")
    if not all(file and len(file) == length and file.startswith(start) for file in files):
        return None
    width, height = int(header.group(1)), int(header.group(2))
    if length != len(start) + height * width:
        return None
    content = np.frombuffer(b"".join(file or b"" for file in files), np.uint8)
    pixels = content.reshape(len(files), length)[:, len(start) :]
    return pixels.reshape(len(files), height, width)
