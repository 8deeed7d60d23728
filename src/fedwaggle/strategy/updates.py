"""What a reply comes to: a :class:`ClientUpdate`, or a :class:`Quarantined` with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fedwaggle.errors import MetadataError
from fedwaggle.metadata import DEFAULT_MAX_BYTES, Codec

__all__ = ["ClientUpdate", "Contract", "Quarantined"]

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
        The reply's MetricRecord, without what is not finite.
    num_examples : float
        The weight of this update in the mean: an int where the client sent one.
    seconds : float
        From the push of the message to this reply, on the server's clock.
    bytes : int
        Array data and metadata payload together.
    dropped_metrics : tuple[str, ...]
        Names of the metrics that were dropped, as they were not finite.
    norm : float | None
        L2 norm of the change that it makes to the trained arrays, as it was sent; None where it
        was not measured.
    scale : float
        What its change was multiplied by: below 1 if it was shortened.
    weight : float | None
        Its weight in the mean where that is not ``num_examples``.
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
    dropped_metrics: tuple[str, ...] = ()
    norm: float | None = None
    scale: float = 1.0
    weight: float | None = None

    @property
    def is_bounded(self) -> bool:
        """Whether less of it is in the mean than was sent."""
        return self.scale < 1 or self.weight is not None


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
        Why, as one of ``fedwaggle.strategy.codes.Code``.
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
