"""Small questions to Flower messages."""

from __future__ import annotations

from collections.abc import Sequence

from flwr.app import ConfigRecord, Message, RecordDict

__all__ = ["bytes_of", "config_value", "with_config"]


def with_config(message: Message, key: str, **values: float | int | str) -> None:
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
        for record in message.content.config_records.values():
            value = record.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
    return None


def bytes_of(content: RecordDict) -> int:
    """Return the bytes of array data and of bytes values, which is nearly all of a message."""
    arrays = sum(len(a.data) for record in content.array_records.values() for a in record.values())
    configs = content.config_records.values()
    blobs = sum(len(v) for record in configs for v in record.values() if isinstance(v, bytes))
    return arrays + blobs
