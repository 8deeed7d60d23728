"""The same arrays, sooner: Flower's conversions between ``Array`` and NumPy, without the parsing.

Flower writes an array as a ``.npy`` file in memory, and reads it so: the header is formatted
and parsed as Python source for every array of every message. The headers of a run are few, so
here each is formatted and parsed once, by NumPy itself, and remembered. Bytes and arrays are
the same as Flower's; whatever is not plain (another order of the axes, another version of the
format, a truncated buffer) goes Flower's way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
from flwr.app import Array
from numpy.typing import NDArray

from fedwaggle.engine.flwr_private import make_array

__all__ = ["fast_arrays", "install", "uninstall"]

_MAGIC = b"\x93NUMPY\x01\x00"  # version 1.0, which every array with a short header has
_NUMPY = "numpy.ndarray"  # Flower's name of this way to serialise
_KINDS = frozenset("biufc")  # bool, ints, floats and complex numbers
_MOST_HEADERS = 4096  # an app whose shapes never repeat must not fill the memory

_flower_numpy = Array.numpy
_flower_from_numpy = Array.__dict__["from_numpy_ndarray"]  # the classmethod itself, to put back


class _Layout(NamedTuple):
    """What a header states."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    numbers: int
    end: int  # bytes of header and data together


_headers: dict[tuple[np.dtype[Any], tuple[int, ...]], bytes] = {}
_layouts: dict[bytes, _Layout] = {}


def numpy(self: Array) -> NDArray[Any]:
    """Return the array as a NumPy array of its own, as ``flwr.app.Array.numpy`` does."""
    data = self.data
    if self.stype != _NUMPY or data[:8] != _MAGIC:
        return _flower_numpy(self)
    start = 10 + int.from_bytes(data[8:10], "little")  # byte, where the numbers begin
    header = bytes(data[:start])
    layout = _layouts.get(header)
    if layout is None:
        array = _flower_numpy(self)
        if array.flags.c_contiguous and array.dtype.kind in _KINDS and array.size:
            _make_room(_layouts)
            end = start + array.nbytes
            _layouts[header] = _Layout(array.dtype, array.shape, array.size, end)
        return array
    if len(data) < layout.end:
        return _flower_numpy(self)  # it states what is wrong
    flat = np.frombuffer(data, layout.dtype, layout.numbers, start)
    return cast("NDArray[Any]", flat.reshape(layout.shape).copy())


def from_numpy_ndarray(cls: type[Array], ndarray: NDArray[Any]) -> Array:
    """Serialise a NumPy array, as ``flwr.app.Array.from_numpy_ndarray`` does."""
    if type(ndarray) is not np.ndarray or not ndarray.flags.c_contiguous:
        return _flower_array(ndarray)
    key = (ndarray.dtype, ndarray.shape)
    header = _headers.get(key)
    if header is None:
        array = _flower_array(ndarray)
        if ndarray.dtype.kind in _KINDS and array.data[:8] == _MAGIC:
            _make_room(_headers)
            _headers[key] = array.data[: len(array.data) - ndarray.nbytes]
        return array
    data = b"".join((header, ndarray.data))
    return make_array(str(ndarray.dtype), ndarray.shape, _NUMPY, data)


def _flower_array(ndarray: NDArray[Any]) -> Array:
    return cast("Array", _flower_from_numpy.__func__(Array, ndarray))


def install() -> None:
    """Let every ``Array`` of this process convert so."""
    Array.numpy = numpy  # type: ignore[method-assign]
    Array.from_numpy_ndarray = classmethod(from_numpy_ndarray)  # type: ignore[assignment, method-assign]


def uninstall() -> None:
    """Give the process Flower's own conversions back."""
    Array.numpy = _flower_numpy  # type: ignore[method-assign]
    Array.from_numpy_ndarray = _flower_from_numpy  # type: ignore[method-assign]


@contextmanager
def fast_arrays() -> Iterator[None]:
    """Convert so while this is open."""
    install()
    try:
        yield
    finally:
        uninstall()


def _make_room(remembered: dict[Any, Any]) -> None:
    if len(remembered) >= _MOST_HEADERS:
        remembered.clear()
