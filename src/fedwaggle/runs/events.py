"""What happens in a run, as typed values: one JSON object a line in ``events.jsonl``.

Every line has ``v`` (the version of this vocabulary), ``time`` (UTC) and ``event`` (the kind),
then the fields of its kind. Within a version, kinds and fields may be added; a reader skips
what it does not know. A change of meaning makes a new version.

JSON has no numbers for what is not finite, so these are the strings "NaN", "Infinity" and
"-Infinity" (RFC 8259, section 6). In metrics they come back as numbers.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from reprlib import repr as short_repr
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fedwaggle.errors import RunError

__all__ = [
    "BestModel",
    "CheckpointFailed",
    "CheckpointSaved",
    "ClientQuarantined",
    "ClientUpdated",
    "DecisionTaken",
    "Event",
    "MetadataProblem",
    "MetricValue",
    "NotRepeatable",
    "RoundFinished",
    "RoundStarted",
    "RunFailed",
    "RunFinished",
    "RunResumed",
    "RunStarted",
    "SiteMeasures",
    "SnapshotFailed",
    "UnknownEvent",
    "parse_line",
    "to_line",
]

MetricValue: TypeAlias = float | int | list[float | int]
_Name: TypeAlias = Annotated[str, Field(max_length=200)]


class _Value(BaseModel):
    """A frozen value that is written as JSON."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings", ser_json_bytes="base64")


class _Event(_Value):
    """What every event has."""

    v: Literal[1] = Field(default=1, description="Version of the event vocabulary.")
    time: AwareDatetime = Field(
        default_factory=lambda: datetime.now(UTC), description="When, in UTC (ISO 8601)."
    )


class MetadataProblem(_Value):
    """Why a client's metadata was refused."""

    code: str = Field(description="The kind of refusal.")
    message: str = Field(description="What was expected, what came, what to do.")
    paths: list[str] = Field(default=[], description="Dotted paths of the bad fields.")


class BestModel(_Value):
    """A best model: which round's, by which value of which metric, and its hash."""

    round: int = Field(description="The round that it came from.")
    metric: str = Field(description="The metric that chose it.")
    value: float = Field(description="Its value, always finite.")
    sha256: str = Field(description="SHA-256 of its names, dtypes, shapes and bytes.")


class RunStarted(_Event):
    """The run begins."""

    event: Literal["run-started"] = "run-started"
    name: str = Field(description="Name of the run.")
    app: str = Field(default="", description="The app's package, if it is known.")
    strategy: str = Field(description="Class of the strategy.")
    engine: str = Field(description="What carries the messages.")
    num_rounds: int = Field(description="Rounds that were asked for.")
    nodes: int | None = Field(description="Nodes that were available at the start, if known.")
    config: dict[str, Any] = Field(description="The run config.")
    seed: int = Field(description="The seed of the run.")
    versions: dict[str, str] = Field(
        default={}, description="Versions of Python, of this library and of those below it."
    )
    sha256: str = Field(default="", description="SHA-256 of the initial model.")
    num_parameters: int = Field(default=0, description="Numbers in the initial model's arrays.")


class RunResumed(_Event):
    """The run goes on from a snapshot; what an earlier process wrote past it no longer counts.

    Events of rounds above ``round`` that stand before this line are superseded: they are kept,
    and :func:`current_events` leaves them out.
    """

    event: Literal["run-resumed"] = "run-resumed"
    round: int = Field(description="The last round that the snapshot holds.")
    num_rounds: int = Field(description="Rounds that are asked for now.")
    engine: str = Field(description="What carries the messages now.")
    nodes: int | None = Field(description="Nodes that were available, if known.")
    changes: dict[str, list[Any]] = Field(
        default={}, description="Config keys that changed: the value before and the value now."
    )


class NotRepeatable(_Event):
    """From a round on, the run depends on what the seed does not decide."""

    event: Literal["not-repeatable"] = "not-repeatable"
    round: int = Field(description="The round from which on it depends on it; 0: from the start.")
    cause: str = Field(description="What it depends on: names, replies, times, noise.")
    reason: str = Field(description="Why, for a person.")


class LabelsCounted(_Event):
    """What clients train on is known; in a simulation before the first round."""

    event: Literal["labels-counted"] = "labels-counted"
    round: int = Field(description="The round before which they were counted; 0 for the start.")
    clients: dict[str, dict[str, int]] = Field(
        description="Examples of each class, by the client's name; under `examples` where labels "
        "are no classes."
    )


class RoundStarted(_Event):
    """A round's cohort was sampled."""

    event: Literal["round-started"] = "round-started"
    round: int = Field(description="The round, from 1.")
    learning_rate: float | None = Field(description="Learning rate that clients were sent.")
    sampled: int = Field(description="Clients that were sampled.")
    available: int = Field(description="Nodes that could have been.")
    clients: list[str] = Field(default=[], description="Names of the sampled clients.")
    cooling_down: list[str] = Field(
        default=[], description="Clients left out for now, since they did not answer before."
    )
    bytes_down: int = Field(default=0, description="Size of the messages to the cohort together.")


class SiteMeasures(_Value):
    """What a site's policy did to a reply before it left, as the site reports it."""

    withheld: list[_Name] = Field(
        default=[], max_length=1000, description="Names of what was kept back."
    )
    changed: list[_Name] = Field(
        default=[], max_length=1000, description="Names of what was clipped or rounded."
    )
    clip_norm: float | None = Field(
        default=None, description="The longest change of the weights (L2) that leaves."
    )
    noise_std: float | None = Field(
        default=None, description="Standard deviation of the noise that was added to each weight."
    )
    epsilon: float | None = Field(default=None, description="Privacy budget of a round.")
    delta: float | None = Field(default=None, description="Its probability of failure.")

    @property
    def in_words(self) -> str:
        """One line for a person.

        Examples
        --------
        >>> SiteMeasures(withheld=["metadata.power"], clip_norm=1.0).in_words
        'withholds metadata.power; clips its change to a norm of 1'
        """
        parts = []
        if self.withheld:
            parts.append(f"withholds {_some(self.withheld)}")
        if self.changed:
            parts.append(f"clips or rounds {_some(self.changed)}")
        if self.clip_norm is not None:
            parts.append(f"clips its change to a norm of {self.clip_norm:g}")
        if self.noise_std is not None:
            budget = f"epsilon {self.epsilon or 0:g}, delta {self.delta or 0:g}"
            parts.append(f"adds noise of standard deviation {self.noise_std:.3g} ({budget})")
        return "; ".join(parts)


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


class ClientUpdated(_Event):
    """A client's update was admitted."""

    event: Literal["client-updated"] = "client-updated"
    round: int = Field(description="The round.")
    client: str = Field(description="Name of the client.")
    node_id: str = Field(description="The Flower node behind it.")
    num_examples: float | int = Field(description="Weight of the update in the mean.")
    metrics: dict[str, MetricValue] = Field(description="The reply's metrics.")
    dropped_metrics: list[str] = Field(
        default=[], description="Names of metrics that were left out, as they were not finite."
    )
    metadata: dict[str, Any] | None = Field(
        default=None, description="The decoded metadata; none if none was expected or it was bad."
    )
    metadata_error: MetadataProblem | None = Field(
        default=None, description="Why the metadata was refused: code, message, paths."
    )
    seconds: float = Field(description="From the push to this reply, on the server's clock (s).")
    bytes: int = Field(description="Size of the reply.")
    norm: float | None = Field(
        default=None, description="L2 norm of its change to the trained arrays, if measured."
    )
    scale: float = Field(
        default=1.0, description="What its change was multiplied by; below 1 if out of line."
    )
    weight: float | int | None = Field(
        default=None, description="Its weight in the mean where that is not `num_examples`."
    )

    site: SiteMeasures | None = Field(
        default=None, description="What the policy of the client's site did to it, if anything."
    )

    @property
    def is_bounded(self) -> bool:
        """Whether less of it is in the mean than was sent: it was out of line."""
        return self.scale < 1 or self.weight is not None


class ClientEvaluated(_Event):
    """A client's evaluation of the model was admitted."""

    event: Literal["client-evaluated"] = "client-evaluated"
    round: int = Field(description="The round.")
    client: str = Field(description="Name of the client.")
    metrics: dict[str, MetricValue] = Field(
        description="What it measured, with its number of examples."
    )


class ClientQuarantined(_Event):
    """A client's reply was refused."""

    event: Literal["client-quarantined"] = "client-quarantined"
    round: int = Field(description="The round.")
    client: str = Field(description="Name of the client.")
    node_id: str = Field(description="The Flower node behind it.")
    code: str = Field(description="Reason code.")
    reason: str = Field(description="The reason, for a person.")
    seconds: float = Field(description="From the push to this reply, on the server's clock (s).")
    phase: Literal["train", "evaluate"] = Field(
        default="train", description="What the client was asked to do."
    )


class DecisionTaken(_Event):
    """A policy acted on what the clients said."""

    event: Literal["decision-taken"] = "decision-taken"
    round: int = Field(description="The round after which it was taken.")
    policy: str = Field(description="Name of the policy.")
    action: str = Field(description="What is done, for a person.")
    reason: str = Field(description="Why, with the figures.")
    clients: list[str] = Field(default=[], description="The clients that it is about.")


class RoundFinished(_Event):
    """A round ended; round 0 is the initial model."""

    event: Literal["round-finished"] = "round-finished"
    round: int = Field(description="The round; 0 is the initial model.")
    learning_rate: float | None = Field(
        default=None, description="Learning rate that clients were sent."
    )
    metrics: dict[str, MetricValue] = Field(
        default={}, description="The server's evaluation of the new global model."
    )
    train_metrics: dict[str, MetricValue] = Field(
        default={}, description="The clients' training metrics, averaged."
    )
    evaluate_metrics: dict[str, MetricValue] = Field(
        default={}, description="The clients' evaluation metrics, averaged."
    )
    updates: int = Field(default=0, description="Updates in the mean.")
    quarantined: int = Field(default=0, description="Replies that were refused.")
    missing: list[str] = Field(default=[], description="Clients that never answered, by name.")
    evaluate_missing: list[str] = Field(
        default=[], description="Clients that were to evaluate and never answered, by name."
    )
    skipped: bool = Field(
        default=False,
        description="Whether the model was kept: too few updates, or no step to take.",
    )
    bytes_up: int = Field(default=0, description="Size of the replies together.")
    cosines: dict[str, float] = Field(
        default={},
        description="Cosine of each update's change to the mean of all, by client; an estimate "
        "from 4,096 weights of a larger model.",
    )
    phases: dict[str, float] = Field(
        default={}, description="Seconds of each phase: train, aggregate, evaluate, commit ..."
    )
    seconds: float = Field(description="Wall time of the round (s).")


class CheckpointSaved(_Event):
    """A new best model is on disk."""

    event: Literal["checkpoint-saved"] = "checkpoint-saved"
    round: int = Field(description="The round that it came from.")
    metric: str = Field(description="The metric that chose it.")
    value: float = Field(description="Its value.")
    file: str = Field(description="File name inside the run folder.")
    sha256: str = Field(description="SHA-256 of the model's names, dtypes, shapes and bytes.")
    bytes: int = Field(description="Size of the file.")


class CheckpointFailed(_Event):
    """A new best model could not be written; the file before it is whole."""

    event: Literal["checkpoint-failed"] = "checkpoint-failed"
    round: int = Field(description="The round that it came from.")
    metric: str = Field(description="The metric that chose it.")
    value: float = Field(description="Its value.")
    file: str = Field(description="File name inside the run folder.")
    error: str = Field(description="Type and message of the error.")


class SnapshotFailed(_Event):
    """A resume point could not be written; those before it are whole."""

    event: Literal["snapshot-failed"] = "snapshot-failed"
    round: int = Field(description="The round that it was of.")
    error: str = Field(description="Type and message of the error.")


class RunFinished(_Event):
    """The run ended well."""

    event: Literal["run-finished"] = "run-finished"
    rounds: int = Field(description="Rounds that were run.")
    best: BestModel | None = Field(
        default=None, description="The best model on disk: round, metric, value, sha256."
    )
    metrics: dict[str, MetricValue] = Field(
        default={}, description="The server's evaluation of the last model."
    )
    sha256: str = Field(description="SHA-256 of the last model.")
    seconds: float = Field(description="Wall time of the run (s).")


class RunFailed(_Event):
    """The run ended by an error."""

    event: Literal["run-failed"] = "run-failed"
    error: str = Field(description="Type and message of the error.")
    round: int = Field(description="The last round that an event spoke of; 0 before the first.")
    seconds: float = Field(description="Wall time of the run (s).")


Event: TypeAlias = Annotated[
    RunStarted
    | RunResumed
    | NotRepeatable
    | LabelsCounted
    | RoundStarted
    | ClientUpdated
    | ClientEvaluated
    | ClientQuarantined
    | DecisionTaken
    | RoundFinished
    | CheckpointSaved
    | CheckpointFailed
    | SnapshotFailed
    | RunFinished
    | RunFailed,
    Field(discriminator="event"),
]


class UnknownEvent(_Value):
    """An event of a newer version, or of a kind that this version does not know.

    Attributes
    ----------
    event : str
        Its kind, as far as it states one.
    raw : dict[str, Any]
        The JSON object as it stands.
    """

    event: str
    raw: dict[str, Any]


_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def to_line(event: Event) -> str:
    r"""Return an event as one line of JSON, without the line's end.

    Anything can be written: what JSON has no form for (a class of a client's own, say) is
    written as its ``repr``.

    Parameters
    ----------
    event : Event
        Any event.

    Returns
    -------
    str
        ASCII only, so that no character in it can be taken for the end of a line.

    Examples
    --------
    >>> when = datetime(2026, 1, 2, tzinfo=UTC)
    >>> to_line(RoundStarted(time=when, round=1, learning_rate=0.1, sampled=5, available=10))
    '{"v":1,"time":"2026-01-02T00:00:00Z","event":"round-started","round":1,"learning_rate":0.1,"sampled":5,"available":10,"clients":[],"cooling_down":[],"bytes_down":0}'
    """  # a line is a line
    return event.model_dump_json(fallback=repr, ensure_ascii=True)


def parse_line(line: str | bytes) -> Event | UnknownEvent:
    """Return the event that a line of ``events.jsonl`` holds.

    Parameters
    ----------
    line : str | bytes
        One line, with or without its end.

    Returns
    -------
    Event | UnknownEvent
        An unknown event if its kind, its version or its fields are not of this version.

    Raises
    ------
    RunError
        If the line is not a JSON object.

    Examples
    --------
    >>> parse_line('{"v": 2, "event": "moon-landed"}').event
    'moon-landed'
    """
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError):
        raw = None
    if not isinstance(raw, dict):
        raise RunError(f"expected one JSON object a line, got {short_repr(line[:100])}")
    try:
        return _EVENT.validate_python(raw)
    except ValidationError:
        return UnknownEvent(event=str(raw.get("event", "")), raw=raw)
