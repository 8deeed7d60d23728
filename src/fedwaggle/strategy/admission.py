"""From a reply to an update: everything that a client sent, checked against the model.

A reply is admitted, with its arrays as views of what came, or it is quarantined with a reason
code. The checks are those that Flower leaves out: one NaN, one wrong shape or a count of 10^12
would otherwise end the run or become the model. Nothing that a client can send raises.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedwaggle.errors import ConfigError, MetadataCode, MetadataError
from fedwaggle.metadata import DEFAULT_MAX_BYTES, unpack
from fedwaggle.refusals import shown
from fedwaggle.strategy.chunks import Chunk, chunks_of, on_threads
from fedwaggle.strategy.codes import Code, Refused
from fedwaggle.strategy.exchange import UNREADABLE, Arrival
from fedwaggle.strategy.npy import Arrays, Template, decode
from fedwaggle.strategy.updates import ClientUpdate, Contract, Quarantined
from fedwaggle.text import printable

__all__ = [
    "Admitted",
    "AdmittedEvaluation",
    "Code",
    "Limits",
    "Template",
    "admit",
    "admit_evaluation",
    "first_non_finite",
]

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)
R = TypeVar("R", ArrayRecord, MetricRecord, ConfigRecord)

_CHUNK_ELEMENTS = 1 << 20
_BLAS_BYTES = 4  # it has no routines for half precision
_SHOWN = 120  # characters of a client's own words, in most reasons
# Metrics are recorded, averaged and plotted, so what a client may send of them has its limits.
_MOST_METRICS = 1_000
_MOST_NUMBERS = 100_000
_LONGEST_NAME = 1_000  # characters
_NUMBER_BYTES = 8
_ERRORS = {  # Flower's error codes: flwr.common.constant.ErrorCode
    UNREADABLE: Code.UNDECODABLE,  # ours
    1: Code.CLIENT_NOT_STARTED,  # LOAD_CLIENT_APP_EXCEPTION
    2: Code.CLIENT_RAISED,  # CLIENT_APP_RAISED_EXCEPTION
    3: Code.MESSAGE_LOST,  # MESSAGE_UNAVAILABLE
    4: Code.MESSAGE_LOST,  # REPLY_MESSAGE_UNAVAILABLE
    5: Code.CLIENT_UNAVAILABLE,  # NODE_UNAVAILABLE
    6: Code.CLIENT_RAISED,  # MOD_FAILED_PRECONDITION
    7: Code.CLIENT_NOT_STARTED,  # INVALID_FAB
    8: Code.CLIENT_CRASHED,  # CLIENT_APP_CRASHED
}


@dataclass(frozen=True)
class Limits:
    """What a run allows its clients.

    Attributes
    ----------
    max_num_examples : int
        The largest weight of one client in the mean.
    weighted_by_key : str
        Key of the weight in the MetricRecord.
    on_bad_metadata : {"keep-weights", "drop-reply"}
        What happens to an update whose metadata is refused.
    max_record_bytes : int
        The largest size of a reply's ConfigRecords together. The payload of metadata does not
        count where there is a contract: it has the contract's limit.
    required_metrics : frozenset[str]
        Metrics that the strategy cannot do without in a reply to training: numbers of at least 0.
    """

    max_num_examples: int
    weighted_by_key: str = "num-examples"
    on_bad_metadata: Literal["keep-weights", "drop-reply"] = "keep-weights"
    max_record_bytes: int = DEFAULT_MAX_BYTES
    required_metrics: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Admitted(Generic[M_co]):
    """A reply to a training message that can be used.

    Attributes
    ----------
    update : ClientUpdate[M | None]
        What the client said.
    arrays : dict[str, ndarray]
        Its arrays, in the shapes and dtypes of the model; views of the message's data.
    message : Message
        The reply itself.
    """

    update: ClientUpdate[M_co | None]
    arrays: Arrays
    message: Message


@dataclass(frozen=True)
class AdmittedEvaluation:
    """A reply to an evaluation message that can be used.

    Attributes
    ----------
    client : str
        The client's name.
    message : Message
        The reply itself.
    """

    client: str
    message: Message


def admit(
    arrival: Arrival,
    *,
    client: str,
    server_round: int,
    template: Template,
    limits: Limits,
    contract: Contract[M] | None,
) -> Admitted[M] | Quarantined:
    """Check one reply to a training message.

    Parameters
    ----------
    arrival : Arrival
        The reply and how long it took.
    client : str
        The name of the client.
    server_round : int
        The round that it belongs to.
    template : Template
        Keys, shapes and dtypes of the global model.
    limits : Limits
        What the run allows.
    contract : Contract | None
        What the metadata must be; None where none is expected.

    Returns
    -------
    Admitted | Quarantined
        The one or the other, whatever the client sent.

    Raises
    ------
    ConfigError
        If the contract cannot work. No reply can cause this.
    """
    try:
        content = _content(arrival)
        _check_size(content, limits, contract)
        metrics, num_examples = _metrics(content, limits)
        _check_required(metrics, limits)
        arrays = _arrays(content, template)
        read = _metadata(content, contract, limits)
        num_bytes = _num_bytes(content)
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001  # see _quarantined
        return _quarantined(arrival, client, error)
    update = ClientUpdate(
        client=client,
        node_id=arrival.node_id,
        server_round=server_round,
        metadata=read[0],
        metadata_error=read[1],
        metrics=metrics,
        num_examples=num_examples,
        seconds=arrival.seconds,
        bytes=num_bytes,
    )
    return Admitted(update, arrays, arrival.message)


def admit_evaluation(
    arrival: Arrival, *, client: str, limits: Limits
) -> AdmittedEvaluation | Quarantined:
    """Check one reply to an evaluation message, of which only the MetricRecord is read.

    Parameters
    ----------
    arrival : Arrival
        The reply and how long it took.
    client : str
        The name of the client.
    limits : Limits
        What the run allows.

    Returns
    -------
    AdmittedEvaluation | Quarantined
        The one or the other, whatever the client sent.
    """
    try:
        content = _content(arrival)
        _check_size(content, limits, None)
        _metrics(content, limits)
    except Exception as error:  # noqa: BLE001  # see _quarantined
        return _quarantined(arrival, client, error)
    return AdmittedEvaluation(client, arrival.message)


def _quarantined(arrival: Arrival, client: str, error: Exception) -> Quarantined:
    """Turn whatever reading a reply raised into a value: the one boundary where that happens.

    A refusal knows its code. Anything else is a stranger's bytes meeting NumPy, pydantic and
    Flower: there is no list of what these may raise, MemoryError and RecursionError included.
    """
    if isinstance(error, Refused):
        code, reason = error.code, error.reason
    else:
        code, reason = Code.UNDECODABLE, printable(f"{type(error).__name__}: {error}", _SHOWN)
    return Quarantined(client, arrival.node_id, code, reason, arrival.seconds)


def _content(arrival: Arrival) -> RecordDict:
    """Return the content of a reply, if it is no error."""
    message = arrival.message
    if not message.has_error():
        return message.content
    code = _ERRORS.get(message.error.code, Code.CLIENT_ERROR)
    # An error that the SuperLink answers in a node's place has the SuperLink as its source.
    speaker = "the client" if message.metadata.src_node_id == arrival.node_id else "Flower"
    words = printable(str(message.error.reason or "nothing"))
    raise Refused(code, f"{speaker} says: {words}")


def _of_kind(content: RecordDict, kind: type[R]) -> list[R]:
    """Return the records of a kind, without Flower's views of them.

    ``content.array_records`` is part of a cycle of references: a reply that was looked at in
    that way stays in memory, arrays and all, until the garbage collector comes by.
    """
    return [record for record in content.values() if isinstance(record, kind)]


def _num_bytes(content: RecordDict) -> int:
    """Return the bytes of array data and of bytes values, which is nearly all of a reply."""
    arrays = (array for record in _of_kind(content, ArrayRecord) for array in record.values())
    values = (value for record in _of_kind(content, ConfigRecord) for value in record.values())
    blobs = (value for value in values if isinstance(value, bytes))
    return sum(len(array.data) for array in arrays) + sum(len(blob) for blob in blobs)


def _check_size(content: RecordDict, limits: Limits, contract: Contract[Any] | None) -> None:
    """Refuse a reply with large ConfigRecords: it may have to be kept until the round ends."""
    unpacked = None if contract is None else ("metadata", "payload")
    size = sum(
        len(name) + len(key) + _bytes_of(value)
        for name, record in content.items()
        if isinstance(record, ConfigRecord)
        for key, value in record.items()
        if (name, key) != unpacked
    )
    if size > limits.max_record_bytes:
        raise Refused(
            Code.TOO_LARGE,
            "ConfigRecords, metadata aside: expected at most max-metadata-bytes = "
            f"{limits.max_record_bytes}, got {size}",
        )


def _bytes_of(value: object) -> int:
    """Return about how many bytes a value of a ConfigRecord has."""
    if isinstance(value, bytes | str):
        return len(value)
    if not isinstance(value, list):
        return _NUMBER_BYTES
    if value and isinstance(value[0], bytes | str):  # all items of a list are of one type
        return sum(map(len, value)) + _NUMBER_BYTES * len(value)
    return _NUMBER_BYTES * len(value)


def _metrics(content: RecordDict, limits: Limits) -> tuple[dict[str, Any], int]:
    """Return the metrics and the weight of a reply."""
    records = _of_kind(content, MetricRecord)
    if len(records) != 1:
        code = Code.TWO_METRIC_RECORDS if len(records) else Code.NO_METRICS
        raise Refused(code, f"expected exactly one MetricRecord, got {len(records)}")
    _check_amount(records[0])
    metrics = dict(records[0])
    for key, value in metrics.items():
        if key != limits.weighted_by_key and not _is_finite(value):
            name = printable(key, 80)
            raise Refused(Code.BAD_METRIC, f"metric {name!r}: expected finite, got {shown(value)}")
    return metrics, _weight(metrics, limits)


def _check_amount(record: MetricRecord) -> None:
    """Refuse more metrics than a run can record."""
    if len(record) > _MOST_METRICS:
        reason = f"expected at most {_MOST_METRICS} metrics, got {len(record)}"
        raise Refused(Code.BAD_METRIC, reason)
    numbers = sum(len(v) if isinstance(v, list) else 1 for v in record.values())
    if numbers > _MOST_NUMBERS:
        reason = f"expected at most {_MOST_NUMBERS} numbers in all metrics together, got {numbers}"
        raise Refused(Code.BAD_METRIC, reason)
    longest = max(map(len, record), default=0)
    if longest > _LONGEST_NAME:
        reason = f"expected names of at most {_LONGEST_NAME} characters, got one of {longest}"
        raise Refused(Code.BAD_METRIC, reason)


def _check_required(metrics: Mapping[str, Any], limits: Limits) -> None:
    for key in sorted(limits.required_metrics):
        value = metrics.get(key)
        if not isinstance(value, int | float) or value < 0:
            got = shown(value) if key in metrics else "nothing"
            raise Refused(
                Code.BAD_METRIC,
                f"metric {key!r}, which the strategy needs: expected a number of at least 0, "
                f"got {got}",
            )


def _weight(metrics: Mapping[str, Any], limits: Limits) -> int:
    key = limits.weighted_by_key
    weight = metrics.get(key)
    if type(weight) is not int or weight <= 0:  # not isinstance: True is an int, too
        got = shown(weight) if key in metrics else "nothing"
        raise Refused(Code.BAD_WEIGHT, f"metric {key!r}: expected an int above 0, got {got}")
    if weight > limits.max_num_examples:
        raise Refused(
            Code.EXCESSIVE_WEIGHT,
            f"metric {key!r}: expected at most max-num-examples = {limits.max_num_examples}, "
            f"got {shown(weight)}",
        )
    return weight


def _is_finite(value: float | list[int] | list[float]) -> bool:
    numbers: Sequence[float] = value if isinstance(value, list) else [value]
    # An int may have more digits than a float can say: a comparison is exact and never raises.
    return all(abs(number) <= sys.float_info.max for number in numbers)


def _arrays(content: RecordDict, template: Template) -> Arrays:
    """Return the arrays of a reply, if they are the model's and finite."""
    records = _of_kind(content, ArrayRecord)
    if len(records) != 1:
        code = Code.TWO_ARRAY_RECORDS if len(records) else Code.NO_ARRAYS
        raise Refused(code, f"expected exactly one ArrayRecord, got {len(records)}")
    record = records[0]
    _check_keys(list(record), list(template.specs))
    arrays = {key: decode(record[key], key, spec) for key, spec in template.specs.items()}
    bad = first_non_finite(arrays)
    if bad is not None:
        raise Refused(Code.NOT_FINITE, f"{bad!r}: expected finite numbers, got NaN or an infinity")
    return arrays


def _check_keys(came: Sequence[str], expected: Sequence[str]) -> None:
    missing, unknown = set(expected) - set(came), set(came) - set(expected)
    if missing:
        raise Refused(Code.MISSING_KEY, f"expected {_named(missing)}, which the model has")
    if unknown:
        raise Refused(Code.UNKNOWN_KEY, f"got {_named(unknown)}, which the model does not have")


def _named(keys: set[str]) -> str:
    """Return the first keys in words, and how many more there are."""
    first = sorted(keys)[:3]
    named = ", ".join(repr(printable(key, 60)) for key in first)
    return f"{named} and {len(keys) - len(first)} more" if len(keys) > len(first) else named


def first_non_finite(arrays: Mapping[str, NDArray[Any]]) -> str | None:
    """Return the key of the first array with NaN or an infinity, or None."""
    flat = {key: array.reshape(-1) for key, array in arrays.items() if array.dtype.kind == "f"}
    sizes = [(key, array.size) for key, array in flat.items()]

    def bad_keys(chunks: Sequence[Chunk[str]]) -> set[str]:
        with np.errstate(over="ignore", invalid="ignore"):
            return {key for key, start, stop in chunks if not _all_finite(flat[key][start:stop])}

    shares = on_threads(bad_keys, chunks_of(sizes, _CHUNK_ELEMENTS))
    bad = set().union(*shares)
    return next((key for key in arrays if key in bad), None)


def _all_finite(values: NDArray[Any]) -> bool:
    """Whether there is neither NaN nor an infinity in a flat array of floats."""
    # BLAS needs one pass where the extremes need two, and passes NaN and infinities on. A square
    # that is too large for the type is one, too: only then a closer look is needed.
    if values.dtype.itemsize >= _BLAS_BYTES and math.isfinite(np.dot(values, values)):
        return True
    extremes = np.maximum.reduce(values), np.minimum.reduce(values)
    return all(map(math.isfinite, extremes))


def _metadata(
    content: RecordDict, contract: Contract[M] | None, limits: Limits
) -> tuple[M | None, MetadataError | None]:
    """Return the metadata, or why it was refused; raise if that costs a client its weights."""
    if contract is None:
        return None, None
    try:
        return _unpacked(content, contract), None
    except MetadataError as error:
        if limits.on_bad_metadata == "drop-reply":
            raise Refused(Code.BAD_METADATA, str(error)) from None
        # Its traceback holds this reply with all its arrays, and the round keeps the error.
        return None, error.with_traceback(None)


def _unpacked(content: RecordDict, contract: Contract[M]) -> M:
    record = content.get("metadata")
    if not isinstance(record, ConfigRecord):
        message = "expected a ConfigRecord under 'metadata', got none; send pack(metadata) there"
        raise MetadataError(MetadataCode.MALFORMED, message)
    return unpack(
        record,
        contract.schema,
        codec=contract.codec,
        trust_pickle=contract.trust_pickle,
        max_bytes=contract.max_bytes,
    )
