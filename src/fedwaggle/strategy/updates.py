"""From a reply to an update: what a client sent, read once into a value.

A reply becomes a :class:`ClientUpdate` (its weights can be used) or a :class:`Quarantined` (it
cannot, for the stated reason). Nothing that a client sends raises out of here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from fedwaggle.errors import MetadataCode, MetadataError
from fedwaggle.metadata import DEFAULT_MAX_BYTES, Codec, unpack
from fedwaggle.strategy.exchange import Arrival
from fedwaggle.text import printable

__all__ = ["ClientUpdate", "Contract", "Quarantined", "read_reply", "refusal"]

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)


@dataclass(frozen=True)
class Contract(Generic[M]):
    """What the server expects under ``content["metadata"]``.

    Attributes
    ----------
    schema : type[M]
        The dataclass that both sides share.
    codec : {"json", "pickle"}
        How the payload is encoded.
    trust_pickle : bool
        Whether the operator lets clients run code here, which ``codec="pickle"`` needs.
    max_bytes : int
        Largest payload that is decoded.
    """

    schema: type[M]
    codec: Codec = "json"
    trust_pickle: bool = False
    max_bytes: int = DEFAULT_MAX_BYTES


@dataclass(frozen=True)
class ClientUpdate(Generic[M_co]):
    """One client's reply to a training message.

    Attributes
    ----------
    client : str
        The client's name.
    node_id : int
        The Flower node behind it.
    server_round : int
        The round that it belongs to.
    metadata : M
        The decoded metadata.
    metadata_error : MetadataError | None
        Why there is none, where it was refused.
    metrics : Mapping[str, float | int | list]
        The reply's MetricRecord.
    num_examples : float
        The weight of this update in the mean.
    seconds : float
        From the push of the message to this reply, on the server's clock.
    bytes : int
        Array data and metadata payload together.
    message : Message
        The reply itself.
    """

    client: str
    node_id: int
    server_round: int
    metadata: M_co
    metadata_error: MetadataError | None
    metrics: Mapping[str, Any]
    num_examples: float
    seconds: float
    bytes: int
    message: Message


@dataclass(frozen=True)
class Quarantined:
    """A reply that is not used.

    Attributes
    ----------
    client : str
        The client's name.
    node_id : int
        The Flower node behind it.
    code : str
        ``client-error`` (the client answered with an error) or ``malformed-reply``.
    reason : str
        One line for a person. Text of the client's is cleaned and cut.
    seconds : float
        From the push of the message to this reply.
    """

    client: str
    node_id: int
    code: str
    reason: str
    seconds: float


def read_reply(
    arrival: Arrival,
    *,
    client: str,
    server_round: int,
    weighted_by_key: str,
    contract: Contract[M] | None,
) -> ClientUpdate[M | None] | Quarantined:
    """Read one reply to a training message.

    Bad metadata does not cost a client its weights: the update is kept, its ``metadata`` is
    None, and ``metadata_error`` says why.

    Parameters
    ----------
    arrival : Arrival
        The reply and how long it took.
    client : str
        The name of the client.
    server_round : int
        The round that it belongs to.
    weighted_by_key : str
        Key of the update's weight in its MetricRecord.
    contract : Contract | None
        What the metadata must be; None where none is expected.

    Returns
    -------
    ClientUpdate | Quarantined
        The one or the other; nothing is raised.
    """
    reason = refusal(arrival.message, weighted_by_key=weighted_by_key, with_arrays=True)
    if reason is not None:
        code, text = reason
        return Quarantined(client, arrival.node_id, code, text, arrival.seconds)
    content = arrival.message.content
    metadata, error = _read_metadata(content, contract)
    metrics = next(iter(content.metric_records.values()))
    return ClientUpdate(
        client=client,
        node_id=arrival.node_id,
        server_round=server_round,
        metadata=metadata,
        metadata_error=error,
        metrics=dict(metrics),
        num_examples=_weight(metrics, weighted_by_key) or 0.0,
        seconds=arrival.seconds,
        bytes=_content_bytes(content),
        message=arrival.message,
    )


def refusal(
    message: Message, *, weighted_by_key: str, with_arrays: bool
) -> tuple[str, str] | None:
    """Return the code and the reason why a reply cannot be used, or None if it can.

    Parameters
    ----------
    message : Message
        The reply.
    weighted_by_key : str
        Key of the update's weight in its MetricRecord.
    with_arrays : bool
        Whether it must hold exactly one ArrayRecord, as replies to training messages do.
    """
    if message.has_error():
        return "client-error", f"error {message.error.code}: {printable(message.error.reason or '')}"
    content = message.content
    if with_arrays and len(content.array_records) != 1:
        return "malformed-reply", (
            f"expected exactly one ArrayRecord, got {len(content.array_records)}"
        )
    if len(content.metric_records) != 1:
        return "malformed-reply", (
            f"expected exactly one MetricRecord, got {len(content.metric_records)}"
        )
    metrics = next(iter(content.metric_records.values()))
    if _weight(metrics, weighted_by_key) is None:
        came = metrics.get(weighted_by_key, "nothing")
        return "malformed-reply", (
            f"metric {weighted_by_key!r}: expected a number above 0, got {came!r:.80}"
        )
    return None


def _weight(metrics: MetricRecord, key: str) -> float | None:
    value = metrics.get(key)
    if isinstance(value, int | float) and math.isfinite(value) and value > 0:
        return value
    return None


def _read_metadata(
    content: RecordDict, contract: Contract[M] | None
) -> tuple[M | None, MetadataError | None]:
    if contract is None:
        return None, None
    record = content.get("metadata")
    if not isinstance(record, ConfigRecord):
        message = "expected a ConfigRecord under 'metadata', got none; send pack(metadata) there"
        return None, MetadataError(MetadataCode.MALFORMED, message)
    try:
        decoded = unpack(
            record,
            contract.schema,
            codec=contract.codec,
            trust_pickle=contract.trust_pickle,
            max_bytes=contract.max_bytes,
        )
    except MetadataError as error:
        return None, error
    return decoded, None


def _content_bytes(content: RecordDict) -> int:
    """Return the bytes of array data and of bytes values, which is nearly all of a reply."""
    arrays = sum(len(a.data) for record in content.array_records.values() for a in record.values())
    configs = content.config_records.values()
    blobs = sum(len(v) for record in configs for v in record.values() if isinstance(v, bytes))
    return arrays + blobs
