"""What replies and rounds come to, as values: updates, quarantined replies, training, a summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from flwr.app import ArrayRecord

from fedwaggle.errors import MetadataError
from fedwaggle.identity import client_order
from fedwaggle.metadata import DEFAULT_MAX_BYTES, Codec
from fedwaggle.runs.events import SiteMeasures

__all__ = [
    "ClientUpdate",
    "Contract",
    "Evaluation",
    "Late",
    "Quarantined",
    "RoundSummary",
    "Training",
]

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


class Late:
    """Metadata that is decoded whenever it is read.

    Parameters
    ----------
    read : Callable[[], Any]
        Returns it.
    """

    def __init__(self, read: Callable[[], Any]) -> None:
        self.read = read

    def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[Any]]:
        return _itself, (self.read(),)  # a copy of an update holds the metadata


def _itself(metadata: object) -> object:
    return metadata


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
        The decoded metadata. Beyond the round's ``metadata-budget`` it is decoded anew whenever it
        is read: keep the fields that you need, and not the object's identity.
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
    site : SiteMeasures | None
        What the policy of the client's site did to the reply, as the site reports it.
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
    site: SiteMeasures | None = None

    def bounded(self, scale: float, weight: float) -> ClientUpdate[M_co]:
        """Return the update with the share of its change, and the weight, that are in the mean."""
        metadata = vars(self)["metadata"]  # as it is: asking for it would decode it
        used = weight if weight < self.num_examples else None
        return replace(self, metadata=metadata, scale=scale, weight=used)

    @property
    def has_metadata(self) -> bool:
        """Whether there is metadata; asking does not decode it."""
        return vars(self)["metadata"] is not None


class _Metadata:
    """The attribute ``metadata`` of an update, which may be decoded late."""

    def __get__(self, update: ClientUpdate[M] | None, owner: type) -> object:
        if update is None:
            return self
        metadata = vars(update)["metadata"]
        return metadata.read() if isinstance(metadata, Late) else metadata

    def __set__(self, update: ClientUpdate[M], metadata: object) -> None:
        vars(update)["metadata"] = metadata


# Set when the dataclass is made: in its body, this would be the field's default.
ClientUpdate.metadata = _Metadata()  # type: ignore[misc]


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


@dataclass(frozen=True)
class Training(Generic[M_co]):
    """The training step of a round.

    Attributes
    ----------
    learning_rate : float | None
        The clients' learning rate, if they were sent one.
    updates : Sequence[ClientUpdate[M | None]]
        The updates that were used, by client.
    quarantined : Sequence[Quarantined]
        The replies that were not.
    missing : Sequence[str]
        Names of the clients that never answered.
    arrays : ArrayRecord | None
        The new global model; None keeps the one before.
    metrics : Mapping[str, Any]
        The clients' training metrics, averaged, and what the strategy added.
    skipped : bool
        Whether the model was kept: too few updates were admitted, or no step came of them.
    cosines : Mapping[str, float]
        The cosine of each update's change to the mean of all, by client, where it is measured.
    """

    learning_rate: float | None = None
    updates: Sequence[ClientUpdate[M_co | None]] = ()
    quarantined: Sequence[Quarantined] = ()
    missing: Sequence[str] = ()
    arrays: ArrayRecord | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    skipped: bool = False
    cosines: Mapping[str, float] = field(default_factory=dict)

    @property
    def cohort(self) -> list[str]:
        """Names of the clients that were sampled, in their order."""
        used, refused = [u.client for u in self.updates], [q.client for q in self.quarantined]
        return sorted([*used, *refused, *self.missing], key=client_order)

    @property
    def sampled(self) -> int:
        """How many clients were sampled."""
        return len(self.updates) + len(self.quarantined) + len(self.missing)

    @property
    def bytes_up(self) -> int:
        """Size of the updates together."""
        return sum(update.bytes for update in self.updates)


@dataclass(frozen=True)
class Evaluation:
    """The clients' evaluation in a round.

    Attributes
    ----------
    quarantined : Sequence[Quarantined]
        The replies that were not used.
    missing : Sequence[str]
        Names of the clients that never answered.
    metrics : Mapping[str, Any]
        The clients' evaluation metrics, averaged.
    typical : Mapping[str, float]
        The clients' median of the metric that picks the best model, if they report it.
    """

    quarantined: Sequence[Quarantined] = ()
    missing: Sequence[str] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    typical: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundSummary(Generic[M_co]):
    """A whole round.

    Attributes
    ----------
    server_round, num_rounds : int
        The round, and how many there will be; round 0 is the initial model.
    training : Training
        The training step.
    evaluation : Evaluation
        The clients' evaluation.
    metrics : Mapping[str, Any]
        The server's evaluation of the new global model.
    is_best : bool
        Whether this model is the best so far.
    seconds : float
        Wall time of the round.
    """

    server_round: int
    num_rounds: int
    training: Training[M_co]
    evaluation: Evaluation
    metrics: Mapping[str, Any]
    is_best: bool
    seconds: float
