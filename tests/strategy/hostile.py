"""A catalogue of bad replies: how each is made from an honest one, and what must come of it.

A client app plays a bad client by passing its honest reply through one of these::

    reply = KINDS["nan-weight"].spoil(honest_reply)

``BEHAVIOURS`` are what a client does in place of an answer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedwaggle.errors import MetadataCode
from fedwaggle.metadata import DEFAULT_MAX_BYTES
from fedwaggle.strategy.codes import Code

__all__ = ["ANSI_TEXT", "BEHAVIOURS", "KINDS", "Kind"]

ANSI_TEXT = "\x1b[31mboom\x1b[0m\n\x07" + "A" * 1_000_000


@dataclass(frozen=True)
class Kind:
    """A bad reply, or an odd one that is fine.

    Attributes
    ----------
    spoil : Callable[[Message], Message]
        Makes it from an honest reply, which stays as it is.
    code : Code | None
        The code of its quarantine; None if its weights are used all the same.
    metadata_code : MetadataCode | None
        Why its metadata is refused, where the server expects some.
    """

    spoil: Callable[[Message], Message]
    code: Code | None
    metadata_code: MetadataCode | None = None


# -- Building blocks ---------------------------------------------------------------------------


def with_records(reply: Message, changes: Mapping[str, object]) -> Message:
    """Return a reply with records added, replaced, or (None) taken out."""
    records = {**dict(reply.content.items()), **changes}
    spoiled = copy(reply)
    spoiled.content = RecordDict(
        {key: value for key, value in records.items() if value is not None}
    )
    return spoiled


def name_of(reply: Message, kind: type) -> str:
    return next(key for key, record in reply.content.items() if isinstance(record, kind))


def largest_key(record: ArrayRecord) -> str:
    return max(record, key=lambda key: len(record[key].data))


def on_record(change: Callable[[ArrayRecord], None]) -> Callable[[Message], Message]:
    """Return a spoiler that changes a copy of the ArrayRecord."""

    def spoil(reply: Message) -> Message:
        name = name_of(reply, ArrayRecord)
        record = ArrayRecord(dict(reply.content[name].items()))
        change(record)
        return with_records(reply, {name: record})

    return spoil


def on_array(change: Callable[[Array], Array]) -> Callable[[Message], Message]:
    """Return a spoiler that changes the largest array."""

    def spoil(record: ArrayRecord) -> None:
        key = largest_key(record)
        record[key] = change(record[key])

    return on_record(spoil)


def on_values(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Message], Message]:
    """Return a spoiler that changes the values of the largest array, and is honest about it."""
    return on_array(lambda array: Array(change(array.numpy().copy())))


def last_value(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values.reshape(-1)[-1] = value
        return values

    return change


def on_payload(change: Callable[[bytes], bytes]) -> Callable[[Message], Message]:
    """Return a spoiler that changes the largest array's bytes, and nothing that it declares."""
    return on_array(lambda a: Array(a.dtype, tuple(a.shape), a.stype, change(bytes(a.data))))


def on_metrics(changes: Mapping[str, object]) -> Callable[[Message], Message]:
    """Return a spoiler that sets metrics, or (None) takes them out."""

    def spoil(reply: Message) -> Message:
        name = name_of(reply, MetricRecord)
        metrics = {**dict(reply.content[name].items()), **changes}
        record = MetricRecord({key: value for key, value in metrics.items() if value is not None})
        return with_records(reply, {name: record})

    return spoil


def on_metadata(changes: Mapping[str, object]) -> Callable[[Message], Message]:
    """Return a spoiler that sets fields of the metadata's envelope, or (None) takes them out."""

    def spoil(reply: Message) -> Message:
        values = {**dict(reply.content["metadata"].items()), **changes}
        record = ConfigRecord({key: value for key, value in values.items() if value is not None})
        return with_records(reply, {"metadata": record})

    return spoil


def error(code: int, reason: str) -> Callable[[Message], Message]:
    def spoil(reply: Message) -> Message:
        spoiled = copy(reply)
        spoiled.__dict__.update(_content=None, _error=Error(code, reason))
        return spoiled

    return spoil


def npy_with_header(header: str, data: bytes = b"") -> bytes:
    """Return a .npy file with any text for a header."""
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def as_npy(values: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    file = BytesIO()
    np.save(file, values, allow_pickle=allow_pickle)
    return file.getvalue()


def pickled(array: Array) -> Array:
    objects = np.full(array.shape, None, dtype=object)
    return Array("object", tuple(array.shape), array.stype, as_npy(objects, allow_pickle=True))


def drop_largest(record: ArrayRecord) -> None:
    del record[largest_key(record)]


def add_key(record: ArrayRecord) -> None:
    record["\x1b[31mbackdoor"] = Array(np.zeros(3, np.float32))


def declare(
    dtype: str | None = None, shape: tuple[int, ...] | None = None, stype: str = ""
) -> object:
    def change(a: Array) -> Array:
        return Array(dtype or a.dtype, shape or tuple(a.shape), stype or a.stype, bytes(a.data))

    return on_array(change)


def two_array_records(reply: Message) -> Message:
    return with_records(reply, {"more": reply.content[name_of(reply, ArrayRecord)]})


def no_array_record(reply: Message) -> Message:
    return with_records(reply, {name_of(reply, ArrayRecord): None})


def empty_array_record(reply: Message) -> Message:
    return with_records(reply, {name_of(reply, ArrayRecord): ArrayRecord()})


def two_metric_records(reply: Message) -> Message:
    return with_records(reply, {"more": reply.content[name_of(reply, MetricRecord)]})


def no_metric_record(reply: Message) -> Message:
    return with_records(reply, {name_of(reply, MetricRecord): None})


def metadata_is_metrics(reply: Message) -> Message:
    return with_records(reply, {"metadata": ConfigRecord({"converged": True})})


# -- The catalogue -----------------------------------------------------------------------------

_HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (17179869184,), }"  # 64 GiB
_NEGATIVE = "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"
_FIELDS = "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }"

KINDS: dict[str, Kind] = {
    # values
    "nan-weight": Kind(on_values(last_value(float("nan"))), Code.NOT_FINITE),
    "inf-weight": Kind(on_values(last_value(float("inf"))), Code.NOT_FINITE),
    "minus-inf-weight": Kind(on_values(last_value(float("-inf"))), Code.NOT_FINITE),
    "all-nan": Kind(on_values(lambda v: np.full_like(v, np.nan)), Code.NOT_FINITE),
    # shapes and dtypes, honestly declared
    "shape-one": Kind(on_values(lambda v: v.reshape(-1)[:1]), Code.WRONG_SHAPE),
    "shape-scalar": Kind(on_values(lambda v: v.reshape(-1)[:1].reshape(())), Code.WRONG_SHAPE),
    "shape-longer": Kind(on_values(lambda v: np.append(v, v.dtype.type(0))), Code.WRONG_SHAPE),
    "shape-extra-axis": Kind(on_values(lambda v: v[np.newaxis]), Code.WRONG_SHAPE),
    "shape-empty": Kind(on_values(lambda v: v.reshape(-1)[:0]), Code.WRONG_SHAPE),
    "dtype-float64": Kind(on_values(lambda v: v.astype(np.float64)), Code.WRONG_DTYPE),
    "dtype-float16": Kind(on_values(lambda v: v.astype(np.float16)), Code.WRONG_DTYPE),
    "dtype-int32": Kind(on_values(lambda v: v.astype(np.int32)), Code.WRONG_DTYPE),
    "dtype-complex": Kind(on_values(lambda v: v.astype(np.complex64)), Code.WRONG_DTYPE),
    "dtype-text": Kind(on_values(lambda v: v.astype(str)), Code.WRONG_DTYPE),
    # keys and records
    "missing-key": Kind(on_record(drop_largest), Code.MISSING_KEY),
    "extra-key": Kind(on_record(add_key), Code.UNKNOWN_KEY),
    "two-array-records": Kind(two_array_records, Code.TWO_ARRAY_RECORDS),
    "no-array-record": Kind(no_array_record, Code.NO_ARRAYS),
    "empty-array-record": Kind(empty_array_record, Code.MISSING_KEY),
    "two-metric-records": Kind(two_metric_records, Code.TWO_METRIC_RECORDS),
    "no-metric-record": Kind(no_metric_record, Code.NO_METRICS),
    # arrays that lie
    "huge-header": Kind(on_payload(lambda _: npy_with_header(_HUGE)), Code.WRONG_SHAPE),
    "negative-header": Kind(on_payload(lambda _: npy_with_header(_NEGATIVE)), Code.WRONG_SHAPE),
    "fields-header": Kind(on_payload(lambda _: npy_with_header(_FIELDS)), Code.WRONG_DTYPE),
    "nested-header": Kind(on_payload(lambda _: npy_with_header("(" * 9000)), Code.UNDECODABLE),
    "long-header": Kind(on_payload(lambda _: npy_with_header(" " * 60_000)), Code.WRONG_FORMAT),
    "code-header": Kind(
        on_payload(lambda _: npy_with_header("__import__('os').abort()")), Code.WRONG_FORMAT
    ),
    "truncated": Kind(on_payload(lambda data: data[:-1]), Code.WRONG_SIZE),
    "header-only": Kind(on_payload(lambda data: data[:128]), Code.WRONG_SIZE),
    "trailing-bytes": Kind(on_payload(lambda data: data + b"\x00" * 64), Code.WRONG_SIZE),
    "no-bytes": Kind(on_payload(lambda _: b""), Code.WRONG_FORMAT),
    "not-npy": Kind(on_payload(lambda data: b"PK\x03\x04" + data), Code.WRONG_FORMAT),
    "npy-version-9": Kind(
        on_payload(lambda data: data[:6] + b"\x09" + data[7:]), Code.WRONG_FORMAT
    ),
    "pickled": Kind(on_array(pickled), Code.PICKLED),
    "false-shape": Kind(declare(shape=(1000, 1000)), Code.FALSE_DECLARATION),
    "false-dtype": Kind(declare(dtype="float64"), Code.FALSE_DECLARATION),
    "other-stype": Kind(declare(stype="pickle"), Code.WRONG_FORMAT),
    # numbers
    "weight-zero": Kind(on_metrics({"num-examples": 0}), Code.BAD_WEIGHT),
    "weight-negative": Kind(on_metrics({"num-examples": -9}), Code.BAD_WEIGHT),
    "weight-missing": Kind(on_metrics({"num-examples": None}), Code.BAD_WEIGHT),
    "weight-inf": Kind(on_metrics({"num-examples": float("inf")}), Code.BAD_WEIGHT),
    "weight-1e12-float": Kind(on_metrics({"num-examples": 1e12}), Code.EXCESSIVE_WEIGHT),
    "weight-nan": Kind(on_metrics({"num-examples": float("nan")}), Code.BAD_WEIGHT),
    "weight-list": Kind(on_metrics({"num-examples": [1, 2]}), Code.BAD_WEIGHT),
    "weight-1e12": Kind(on_metrics({"num-examples": 10**12}), Code.EXCESSIVE_WEIGHT),
    "many-metrics": Kind(on_metrics({f"m{i}": 1.0 for i in range(1_000)}), Code.BAD_METRIC),
    "long-metric": Kind(on_metrics({"losses": [0.5] * 100_000}), Code.BAD_METRIC),
    "long-metric-name": Kind(on_metrics({"m" * 1_001: 1.0}), Code.BAD_METRIC),
    # records that would have to be kept until the round ends
    "large-config": Kind(
        lambda r: with_records(r, {"note": ConfigRecord({"a": b" " * (DEFAULT_MAX_BYTES + 1)})}),
        Code.TOO_LARGE,
    ),
    "large-metadata-envelope": Kind(
        on_metadata({"note": [0] * (DEFAULT_MAX_BYTES // 8 + 1)}), Code.TOO_LARGE
    ),
    # errors in place of an answer
    "error-raised": Kind(error(2, ANSI_TEXT), Code.CLIENT_RAISED),
    "error-crashed": Kind(error(8, "ClientApp stopped responding."), Code.CLIENT_CRASHED),
    "error-unavailable": Kind(error(5, "Node unavailable"), Code.CLIENT_UNAVAILABLE),
    "error-not-started": Kind(error(1, ""), Code.CLIENT_NOT_STARTED),
    "error-lost": Kind(error(4, "gone"), Code.MESSAGE_LOST),
    "error-unknown": Kind(error(0, "ActorDiedError"), Code.CLIENT_ERROR),
    "error-9999": Kind(error(9999, "?"), Code.CLIENT_ERROR),
    # kept back by the policy of its site
    "withheld": Kind(
        lambda r: Message(RecordDict({"site": ConfigRecord({"refused": "too few"})}), reply_to=r),
        Code.WITHHELD,
    ),
    # metadata: by default it does not cost a client its weights
    "metadata-missing": Kind(
        lambda reply: with_records(reply, {"metadata": None}), None, MetadataCode.MALFORMED
    ),
    "metadata-no-envelope": Kind(metadata_is_metrics, None, MetadataCode.MALFORMED),
    "metadata-malformed": Kind(on_metadata({"payload": b"\xff{"}), None, MetadataCode.MALFORMED),
    "metadata-not-bytes": Kind(on_metadata({"payload": "{}"}), None, MetadataCode.MALFORMED),
    "metadata-pickled": Kind(on_metadata({"codec": "pickle"}), None, MetadataCode.MALFORMED),
    "metadata-oversized": Kind(
        on_metadata({"payload": b" " * (DEFAULT_MAX_BYTES + 1)}), None, MetadataCode.TOO_LARGE
    ),
    "metadata-wrong-schema": Kind(
        on_metadata({"schema": "Other"}), None, MetadataCode.WRONG_SCHEMA
    ),
    "metadata-wrong-version": Kind(on_metadata({"version": 999}), None, MetadataCode.WRONG_VERSION),
    "metadata-invalid": Kind(on_metadata({"payload": b"{}"}), None, MetadataCode.INVALID),
    "metadata-withheld": Kind(
        on_metadata({"payload": b"{}", "withheld": ["training_time", "converged"]}),
        None,
        MetadataCode.WITHHELD,
    ),
    "metadata-nested": Kind(on_metadata({"payload": b"[" * 60_000}), None, MetadataCode.MALFORMED),
    # odd, but fine
    "weight-float": Kind(on_metrics({"num-examples": 2.5}), None),
    "loss-nan": Kind(on_metrics({"train_loss": float("nan")}), None),
    "loss-inf": Kind(on_metrics({"train_loss": float("inf")}), None),
    "loss-list-inf": Kind(on_metrics({"losses": [1.0, float("-inf")]}), None),
    "extra-metric": Kind(on_metrics({"favourite": 7}), None),
    "extra-config": Kind(lambda r: with_records(r, {"note": ConfigRecord({"a": b"\x00"})}), None),
    "big-endian": Kind(on_values(lambda v: v.astype(v.dtype.newbyteorder(">"))), None),
    "fortran-order": Kind(on_values(np.asfortranarray), None),
}
"""By name. The server's limits are taken to be at most 10^11 examples a client."""


def raise_error(reply: Message) -> Message:
    raise RuntimeError(ANSI_TEXT)


def crash(reply: Message) -> Message:
    os._exit(1)


def stay_silent(reply: Message) -> Message:
    time.sleep(3600)
    return reply


BEHAVIOURS: dict[str, Callable[[Message], Message]] = {
    "raise": raise_error,
    "crash": crash,
    "silence": stay_silent,
}
"""What a client may do in place of an answer: spoil(honest_reply), in the client's process."""
