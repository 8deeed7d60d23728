"""Small questions to Flower messages.

Flower's views of a record dict by type (``content.array_records``) are reference cycles: a reply
that was looked at through one stays in memory until the next garbage collection. So records
are found here by going over the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

__all__ = ["bytes_of", "config_value", "records_of", "with_config"]

R = TypeVar("R", ArrayRecord, ConfigRecord, MetricRecord)


def records_of(content: RecordDict, kind: type[R]) -> dict[str, R]:
    """Return the records of one kind, by name."""
    return {name: record for name, record in content.items() if isinstance(record, kind)}


def with_config(message: Message, key: str, values: Mapping[str, float | int | str]) -> None:
    """Give a message a config of its own, with these values added.

    Flower's strategies put one config into all messages of a round. The other records stay
    shared: an engine that sees the same arrays need send them only once.
    """
    records = dict(message.content.items())
    config = records.get(key)
    shared = dict(config) if isinstance(config, ConfigRecord) else {}
    records[key] = ConfigRecord({**shared, **values})
    message.content = RecordDict(records)


def config_value(messages: Sequence[Message], key: str) -> float | None:
    """Return the number under ``key`` in the configs of a cohort's first message, or None."""
    for message in messages[:1]:
        for record in records_of(message.content, ConfigRecord).values():
            value = record.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
    return None


def bytes_of(content: RecordDict) -> int:
    """Return the bytes of array data and of bytes values, which is nearly all of a message."""
    records = list(content.values())
    arrays = [array for r in records if isinstance(r, ArrayRecord) for array in r.values()]
    blobs = [value for r in records if isinstance(r, ConfigRecord) for value in r.values()]
    return sum(len(array.data) for array in arrays) + sum(
        len(blob) for blob in blobs if isinstance(blob, bytes)
    )
