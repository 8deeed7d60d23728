"""From a reply to an update: everything that a client sent, checked against the model.

A reply is admitted, with its arrays as views of what came, or it is quarantined with a reason
code. The checks are those that Flower leaves out: one NaN, one wrong shape or a count of 10^12
would otherwise end the run or become the model. Nothing that a client can send raises.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, cast

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedwaggle.errors import ConfigError, MetadataCode, MetadataError
from fedwaggle.metadata import DEFAULT_MAX_BYTES, unpack
from fedwaggle.strategy.averaging.arrays import Arrays, Template, decode
from fedwaggle.strategy.averaging.finite import first_non_finite
from fedwaggle.strategy.averaging.kept import Kept
from fedwaggle.strategy.bounds.changes import Ruler
from fedwaggle.strategy.codes import Code, Refused
from fedwaggle.strategy.exchange import TOO_LARGE, UNREADABLE, Arrival
from fedwaggle.strategy.replies.forms import Form, check_arrays, check_free, model_record
from fedwaggle.strategy.replies.measures import check_not_withheld, site_measures
from fedwaggle.strategy.replies.messages import bytes_of, records_of
from fedwaggle.strategy.updates import ClientUpdate, Contract, Quarantined
from fedwaggle.text import printable, shown

__all__ = [
    "Admitted",
    "AdmittedEvaluation",
    "Code",
    "Limits",
    "PartialContent",
    "Template",
    "admit",
    "admit_evaluation",
    "first_non_finite",
]

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)
R = TypeVar("R", ArrayRecord, MetricRecord, ConfigRecord)

_SHOWN = 120  # characters of a client's own words, in most reasons
# Metrics are recorded, averaged and plotted, so what a client may send of them has its limits.
_MOST_METRICS = 1_000
_MOST_NUMBERS = 100_000
_LONGEST_NAME = 1_000  # characters
_NUMBER_BYTES = 8
_ERRORS = {  # Flower's error codes: flwr.common.constant.ErrorCode
    UNREADABLE: Code.UNDECODABLE,  # ours
    TOO_LARGE: Code.TOO_LARGE,  # ours
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
    max_num_examples : float
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
    needs_change : bool
        Whether the strategy's step divides by the norm of each change.
    reads_all_metrics : bool
        Whether a user's own step may read any metric. One that is not finite then costs the
        client its reply; otherwise it is dropped, and the rest of the reply is used.
    form : Form
        Which arrays a reply to training holds. In one of the form "any" there may be any number
        of MetricRecords, too, and without a weight it has the weight 1.
    arrayrecord_key : str
        Name of the record in which the clients are sent the model.
    max_array_bytes : int
        The largest size of the arrays of a reply that are not the model's.
    """

    max_num_examples: float
    weighted_by_key: str = "num-examples"
    on_bad_metadata: Literal["keep-weights", "drop-reply"] = "keep-weights"
    max_record_bytes: int = DEFAULT_MAX_BYTES
    required_metrics: frozenset[str] = frozenset()
    needs_change: bool = False
    reads_all_metrics: bool = False
    form: Form = Form.MODEL
    arrayrecord_key: str = "arrays"
    max_array_bytes: int = 1 << 30


class PartialContent(RecordDict):
    """The content of a reply of which a metric was dropped."""


@dataclass(frozen=True)
class Admitted(Generic[M_co]):
    """A reply to a training message that can be used.

    Attributes
    ----------
    update : ClientUpdate[M | None]
        What the client said.
    arrays : dict[str, ndarray]
        Its arrays that have a mean, in the shapes and dtypes of the model; views of the
        message's data, but for those in which 0 stands for what is kept of the model.
    message : Message
        The reply itself, without the metrics that were dropped.
    norms : tuple[float, ...]
        L2 norms of its change to the model, by group of arrays; empty where it is not measured.
    """

    update: ClientUpdate[M_co | None]
    arrays: Arrays
    message: Message
    norms: tuple[float, ...] = ()


@dataclass(frozen=True)
class AdmittedEvaluation:
    """A reply to an evaluation message that can be used.

    Attributes
    ----------
    client : str
        The client's name.
    message : Message
        The reply itself, without the metrics that were dropped.
    dropped_metrics : tuple[str, ...]
        Names of the metrics that were dropped, as they were not finite.
    """

    client: str
    message: Message
    dropped_metrics: tuple[str, ...] = ()


def admit(
    arrival: Arrival,
    *,
    client: str,
    server_round: int,
    template: Template,
    limits: Limits,
    contract: Contract[M] | None,
    kept: Kept | None = None,
    ruler: Ruler | None = None,
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
    kept : Kept | None (default: None)
        What is not finite in the global model, and may come back as it is.
    ruler : Ruler | None (default: None)
        Measures how far the arrays are from the model; None where that does not matter.

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
        check_not_withheld(content)
        metrics, dropped = _metrics(content, limits)
        num_examples = _weight(metrics, limits)
        _check_required(metrics, limits)
        arrays = _arrays(content, template, limits, kept)
        norms = _norms(arrays, ruler)
        if limits.needs_change and norms and not any(norms):
            raise Refused(Code.NO_CHANGE, "expected a model that was trained, got it as it was")
        read = _metadata(content, contract, limits)
        num_bytes, site = bytes_of(content), site_measures(content)
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
        dropped_metrics=dropped,
        norm=norms[0] if norms and math.isfinite(norms[0]) else None,
        site=site,
    )
    return Admitted(update, arrays, _with_metrics(arrival.message, metrics, dropped), norms)


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
        check_not_withheld(content)
        metrics, dropped = _metrics(content, limits)
        _weight(metrics, limits)
        if dropped and metrics.keys() <= {limits.weighted_by_key}:
            reason = f"expected finite metrics, got none among {len(dropped)}"
            raise Refused(Code.BAD_METRIC, reason)
    except Exception as error:  # noqa: BLE001  # see _quarantined
        return _quarantined(arrival, client, error)
    message = _with_metrics(arrival.message, metrics, dropped)
    return AdmittedEvaluation(client, message, dropped)


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


def _metrics(content: RecordDict, limits: Limits) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the metrics of a reply, and the names of those that are dropped."""
    records = list(records_of(content, MetricRecord).values())
    if len(records) != 1:
        if limits.form is not Form.ANY:
            code = Code.TWO_METRIC_RECORDS if records else Code.NO_METRICS
            raise Refused(code, f"expected exactly one MetricRecord, got {len(records)}")
        records = [MetricRecord({k: v for record in records for k, v in record.items()})]
    _check_amount(records[0])
    metrics = dict(records[0])
    dropped = tuple(key for key, value in metrics.items() if not _is_finite(value))
    for key in dropped:
        if key == limits.weighted_by_key:
            continue  # it has a code of its own
        if limits.reads_all_metrics or key in limits.required_metrics:
            name, value = printable(key, 80), metrics[key]
            raise Refused(Code.BAD_METRIC, f"metric {name!r}: expected finite, got {shown(value)}")
        del metrics[key]
    return metrics, dropped


def _with_metrics(message: Message, metrics: Mapping[str, Any], dropped: Sequence[str]) -> Message:
    """Return a reply with the metrics that are left of it."""
    if not dropped:
        return message
    records: dict[str, Any] = {
        name: MetricRecord(dict(metrics)) if isinstance(record, MetricRecord) else record
        for name, record in message.content.items()
    }
    reply = copy(message)
    reply.content = PartialContent(records)
    return reply


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


def _weight(metrics: Mapping[str, Any], limits: Limits) -> float:
    key = limits.weighted_by_key
    if key not in metrics and limits.form is Form.ANY:
        return 1
    weight: Any = metrics.get(key)
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not is_number or not _is_finite(weight) or weight <= 0:
        got = shown(weight) if key in metrics else "nothing"
        reason = f"metric {key!r}: expected a finite number above 0, got {got}"
        raise Refused(Code.BAD_WEIGHT, reason)
    if weight > limits.max_num_examples:
        raise Refused(
            Code.EXCESSIVE_WEIGHT,
            f"metric {key!r}: expected at most max-num-examples = {limits.max_num_examples}, "
            f"got {shown(weight)}",
        )
    return cast("float", weight)


def _is_finite(value: float | list[int] | list[float]) -> bool:
    numbers: Sequence[float] = value if isinstance(value, list) else [value]
    # An int may have more digits than a float can say: a comparison is exact and never raises.
    return all(abs(number) <= sys.float_info.max for number in numbers)


def _arrays(content: RecordDict, template: Template, limits: Limits, kept: Kept | None) -> Arrays:
    """Return the arrays of a reply that have a mean, if they are the model's."""
    if not limits.form.is_fixed:
        check_free(content, limits.form, limits.max_array_bytes)
        return {}
    records = records_of(content, ArrayRecord)
    name = model_record(content, template, limits.arrayrecord_key)
    if name is None or (len(records) > 1 and limits.form is Form.MODEL):
        code = Code.TWO_ARRAY_RECORDS if len(records) else Code.NO_ARRAYS
        raise Refused(code, f"expected exactly one ArrayRecord, got {len(records)}")
    record = records.pop(name)
    check_arrays(records, limits.max_array_bytes)
    _check_keys(list(record), list(template.specs))
    specs = template.averaged.specs
    arrays = {key: decode(record[key], key, spec) for key, spec in specs.items()}
    return arrays if kept is None else kept.from_reply(arrays)


def _norms(arrays: Arrays, ruler: Ruler | None) -> tuple[float, ...]:
    """Return how far finite arrays are from the model; refuse what is not finite."""
    norms = ruler.norms(arrays) if ruler else ()
    if norms and all(map(math.isfinite, norms)):  # then so is every number that they are made of
        return norms
    bad = first_non_finite(arrays)
    if bad is not None:
        raise Refused(Code.NOT_FINITE, f"{bad!r}: expected finite numbers, got NaN or an infinity")
    return norms


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
        raise MetadataError(
            MetadataCode.MALFORMED,
            "expected a ConfigRecord under 'metadata', got none; add "
            'content["metadata"] = pack(metadata, context) to the reply',
        )
    return unpack(
        record,
        contract.schema,
        codec=contract.codec,
        trust_pickle=contract.trust_pickle,
        max_bytes=contract.max_bytes,
    )
