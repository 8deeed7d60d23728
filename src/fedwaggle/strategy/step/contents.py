"""Replies with other records in them; the reply that was sent keeps its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from copy import copy
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from fedwaggle.strategy.averaging.arrays import Arrays, encode
from fedwaggle.strategy.layers import setting_of
from fedwaggle.strategy.replies.admission import Admitted
from fedwaggle.strategy.replies.messages import records_of

__all__ = [
    "alike",
    "hollow",
    "metrics_in",
    "readable",
    "usual",
    "with_arrays",
    "with_content",
    "with_weight",
]


def metrics_in(content: RecordDict) -> MetricRecord:
    """Return the metrics of a reply; an empty record if there are none."""
    return next(iter(records_of(content, MetricRecord).values()), MetricRecord())


def with_content(message: Message, content: RecordDict) -> Message:
    """Return a reply with another content; the reply keeps its own."""
    other = copy(message)
    other.content = content
    return other


def with_arrays(content: RecordDict, name: str | None, arrays: Arrays) -> RecordDict:
    """Return a reply's content with other values in the ArrayRecord of this name."""
    records: dict[str, Any] = dict(content.items())
    changed = {key: encode(array) for key, array in arrays.items()}
    records[name or ""] = ArrayRecord({**records[name or ""], **changed})
    return type(content)(records)


def with_weight(content: RecordDict, strategy: Strategy, weight: float) -> RecordDict:
    """Return a reply's content with another weight in its metrics, if it is another."""
    key = setting_of(strategy, "weighted_by_key", "num-examples")
    metrics = metrics_in(content)  # a reply of a strategy that reads it itself may lack the weight
    if metrics.get(key, weight) == weight:
        return content
    records: dict[str, Any] = dict(content.items())
    for name in records_of(content, MetricRecord):
        records[name] = MetricRecord({**metrics, key: weight})
    return type(content)(records)


def readable(admitted: Admitted[Any]) -> Message:
    """Return a reply without its metadata if that was refused: it is not to be decoded now."""
    if admitted.update.metadata_error is None:
        return admitted.message
    records = dict(admitted.message.content.items())
    records.pop("metadata", None)
    return with_content(admitted.message, type(admitted.message.content)(records))


def hollow(message: Message) -> Message:
    """Return a message with the names of its records, and nothing in them that takes room."""
    arrays = {name: ArrayRecord() for name in records_of(message.content, ArrayRecord)}
    content = RecordDict({**arrays, **records_of(message.content, MetricRecord)})
    return with_content(message, content)


def alike(messages: Sequence[Message], models: Sequence[str | None] = ()) -> list[Message]:
    """Return replies with the same record names, and the metrics that all of them have.

    Each record's name is the one that most clients gave it, so that a strategy finds it.

    Parameters
    ----------
    messages : Sequence[Message]
        The replies; they stay as they are.
    models : Sequence[str | None]
        For each the name of the ArrayRecord that is the model; none for an evaluation.
    """
    sent = [metrics_in(message.content) for message in messages]
    common = [key for key in sent[0] if all(key in metrics for metrics in sent)]
    names = [next(iter(records_of(m.content, MetricRecord)), None) for m in messages]
    alike = []
    for message, metrics, own, model in zip(
        messages, sent, names, models or [None] * len(messages), strict=True
    ):
        records: dict[str, Any] = dict(message.content.items())
        arrays = None if model is None else records.pop(model)
        records.pop(own or "", None)
        if arrays is not None:
            records[usual(models)] = arrays
        records[usual(names)] = MetricRecord({key: metrics[key] for key in common})
        alike.append(with_content(message, RecordDict(records)))
    return alike


def usual(names: Sequence[str | None]) -> str:
    """Return the most common name; of several, the one that comes first."""
    return Counter(name for name in names if name is not None).most_common(1)[0][0]
