"""Reading an array that a client sent: checked against the model's own, and not copied.

A Flower ``Array`` carries a ``.npy`` file in memory and, beside it, a shape and a dtype that
nobody checks. Here only the file's own header counts. It must be the model's, its data must be
as long as it states, and what is declared beside it must be true. The result is a view of the
payload. Nothing is unpickled, and nothing is allocated because a header asks for it.

References
----------
The .npy format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any, TypeAlias

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.lib import format as npy
from numpy.typing import NDArray

from fedwaggle.errors import ConfigError
from fedwaggle.strategy.codes import Code, Refused
from fedwaggle.text import printable

__all__ = [
    "ArraySpec",
    "Arrays",
    "Template",
    "decode",
    "decoded",
    "encode",
    "flat_reals",
    "real_dtype",
]

Arrays: TypeAlias = dict[str, NDArray[Any]]
"""Arrays by key, as in a state dict."""

_STYPE = "numpy.ndarray"
_LONGEST_HEADER = 12 + 10_000  # bytes; NumPy refuses to read longer ones too
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_OPAQUE = "_extra_state"  # torch's key for what a module's get_extra_state returns
_REALS = {"F": "f", "D": "d", "G": "g"}  # of which complex numbers are pairs


@dataclass(frozen=True)
class ArraySpec:
    """What an array of the model is.

    Attributes
    ----------
    shape : tuple[int, ...]
        Its shape.
    dtype : np.dtype
        Its dtype, in the byte order of this machine.
    header : bytes
        How a ``.npy`` file of such an array begins.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    header: bytes

    @classmethod
    def of(cls, array: NDArray[Any]) -> ArraySpec:
        """Return what ``array`` is."""
        header = BytesIO()
        c_ordered = np.broadcast_to(np.empty((), array.dtype), array.shape)
        npy.write_array_header_1_0(
            header, {**npy.header_data_from_array_1_0(c_ordered), "fortran_order": False}
        )
        return cls(array.shape, array.dtype, header.getvalue())

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


@dataclass(frozen=True)
class Template:
    """What the arrays of every reply must be: the keys, shapes and dtypes of the global model.

    Attributes
    ----------
    specs : Mapping[str, ArraySpec]
        One for each array, in the model's order.
    """

    specs: Mapping[str, ArraySpec]

    @classmethod
    def of(cls, arrays: ArrayRecord) -> Template:
        """Return the template that a global model is.

        Parameters
        ----------
        arrays : ArrayRecord
            The global model.

        Raises
        ------
        ConfigError
            If an array cannot be read, or is not of numbers that have a mean.

        Examples
        --------
        >>> model = ArrayRecord({"fc.weight": Array(np.zeros((2, 3), np.float32))})
        >>> str(Template.of(model).specs["fc.weight"])
        'float32[2, 3]'
        """
        specs, mistakes = {}, []
        for key, array in arrays.items():
            try:
                specs[key] = ArraySpec.of(_read(array))
            except Refused as refused:
                mistakes.append(f"initial arrays, {key!r}: {refused.reason}")
        if mistakes:
            raise ConfigError(mistakes)
        return cls(specs)

    @cached_property
    def num_bytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(math.prod(spec.shape) * spec.dtype.itemsize for spec in self.specs.values())

    @cached_property
    def opaque(self) -> frozenset[str]:
        """Keys of the arrays that are no numbers to average: what torch calls extra state.

        A module keeps there whatever it likes, such as pickled bytes. A client's own may have
        another length, and is not read; the server's stays.
        """
        return frozenset(key for key in self.specs if key.rpartition(".")[2] == _OPAQUE)

    @cached_property
    def averaged(self) -> Template:
        """The arrays that have a mean."""
        specs = self.specs
        return Template({key: specs[key] for key in specs if key not in self.opaque})

    @cached_property
    def trainable(self) -> frozenset[str]:
        """Keys of the arrays that an optimizer may step.

        Whole numbers cannot be stepped, and the statistics of a BatchNorm layer are measured,
        not trained: for these the clients' mean is the new value.
        """
        return frozenset(
            key
            for key, spec in self.specs.items()
            if spec.dtype.kind in "fc" and key.rpartition(".")[2] not in (*_BUFFERS, _OPAQUE)
        )


def decode(array: Array, key: str, spec: ArraySpec | None = None) -> NDArray[Any]:
    """Return an array of a reply, if it is what the model has under its key.

    Parameters
    ----------
    array : Array
        What a client sent. Its data is ``bytes``, or any buffer that holds a ``.npy`` file.
    key : str
        Its key, for the reason of a refusal.
    spec : ArraySpec | None (default: None)
        What the model has there; None takes any numbers.

    Returns
    -------
    ndarray
        In C order and in the byte order of this machine; a read-only view of the payload
        unless the client sent another order.

    Raises
    ------
    Refused
        If it is anything else; the code states what.

    Examples
    --------
    >>> spec = ArraySpec.of(np.zeros(2, np.float32))
    >>> decode(Array(np.array([1.0, 2.0], np.float32)), "w", spec)
    array([1., 2.], dtype=float32)
    """
    try:
        return _read(array, spec)
    except Refused as refused:
        raise Refused(refused.code, f"{printable(key, 80)!r}: {refused.reason}") from None


def real_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of the parts of a complex number; any other dtype is its own.

    Examples
    --------
    >>> real_dtype(np.dtype("complex64")), real_dtype(np.dtype("int8"))
    (dtype('float32'), dtype('int8'))
    """
    return np.dtype(_REALS.get(dtype.char, dtype))


def flat_reals(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in one dimension, without a copy where it lies in C order.

    Complex numbers become two real ones each: what is linear is the same for both.

    Examples
    --------
    >>> flat_reals(np.array([[1 + 2j, 3]]))
    array([1., 2., 3., 0.])
    """
    flat = array.reshape(-1)
    return (
        np.ascontiguousarray(flat).view(real_dtype(flat.dtype)) if flat.dtype.kind == "c" else flat
    )


def decoded(arrays: ArrayRecord, template: Template) -> Arrays:
    """Return the arrays of a model that have a mean, as views of its bytes.

    Parameters
    ----------
    arrays : ArrayRecord
        The model.
    template : Template
        Its keys, shapes and dtypes.
    """
    return {key: decode(arrays[key], key, s) for key, s in template.averaged.specs.items()}


def encode(array: NDArray[Any]) -> Array:
    """Return an array as Flower carries it, with one copy of its data instead of Flower's two.

    Parameters
    ----------
    array : ndarray
        Numbers of any shape; it stays as it is.

    Examples
    --------
    >>> encode(np.array([1, 2])).numpy()
    array([1, 2])
    """
    data = np.asarray(array, order="C")
    header = ArraySpec.of(data).header
    payload = b"".join((header, data.reshape(-1).view(np.uint8).data))
    return Array(str(data.dtype), data.shape, _STYPE, payload)


@dataclass(frozen=True)
class _Header:
    """What the header of a ``.npy`` file states, and how long it is."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    bytes: int


def _read(array: Array, spec: ArraySpec | None = None) -> NDArray[Any]:
    if array.stype != _STYPE:
        came = printable(str(array.stype), 40)
        raise Refused(Code.WRONG_FORMAT, f"expected stype {_STYPE!r}, got {came!r}")
    data = memoryview(array.data)
    if spec is not None and data[: len(spec.header)] == spec.header:
        header = _Header(spec.shape, spec.dtype, False, len(spec.header))  # nothing to parse
    else:
        header = _parse_header(data)
        _check_header(header, spec)
    _check_size(header, len(data))
    _check_declared(array, header)
    return _view(data, header)


def _parse_header(data: memoryview) -> _Header:
    """Parse the header of a ``.npy`` file, versions 1 to 3."""
    start = BytesIO(data[:_LONGEST_HEADER])
    try:
        version = npy.read_magic(start)
        # Version 3 differs from 2 in the encoding of field names, and our arrays have no fields.
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = read(start)
    except ValueError as error:
        reason = printable(str(error), 120)
        raise Refused(Code.WRONG_FORMAT, f"expected a .npy file: {reason}") from None
    return _Header(shape, dtype, fortran_order, start.tell())


def _check_header(header: _Header, spec: ArraySpec | None) -> None:
    """Refuse what is not numbers, or not of the model's dtype and shape."""
    dtype = header.dtype
    if dtype.hasobject:
        raise Refused(Code.PICKLED, "expected numbers, got pickled Python objects")
    if dtype.kind not in "biufc":
        expected = "bool, int, uint, float or complex" if spec is None else str(spec.dtype)
        got = printable(str(dtype), 40)
        raise Refused(Code.WRONG_DTYPE, f"expected dtype {expected}, got {got}")
    if spec is None:
        return
    if dtype.newbyteorder("=") != spec.dtype:
        raise Refused(Code.WRONG_DTYPE, f"expected dtype {spec.dtype}, got {dtype}")
    if header.shape != spec.shape:
        got = printable(str(header.shape), 80)
        raise Refused(Code.WRONG_SHAPE, f"expected shape {spec.shape}, got {got}")


def _check_size(header: _Header, payload_bytes: int) -> None:
    expected = math.prod(header.shape) * header.dtype.itemsize  # Python's ints do not overflow
    got = payload_bytes - header.bytes
    if got != expected:
        raise Refused(Code.WRONG_SIZE, f"expected {expected} bytes of data, got {got}")


def _check_declared(array: Array, header: _Header) -> None:
    """Refuse a Flower ``Array`` whose own fields contradict the file that it carries."""
    declared = (array.dtype, tuple(array.shape))
    actual = (str(header.dtype), header.shape)
    if declared != actual:
        got = printable(str(declared), 80)
        raise Refused(Code.FALSE_DECLARATION, f"declares {got}, but the data is {actual}")


def _view(data: memoryview, header: _Header) -> NDArray[Any]:
    flat: NDArray[Any] = np.frombuffer(data[header.bytes :], header.dtype)
    shaped = flat.reshape(header.shape, order="F" if header.fortran_order else "C")
    return shaped.astype(header.dtype.newbyteorder("="), order="C", copy=False)
