"""A run as typed Python values, read from its folder.

::

    run = load("outputs/20260102T030405Z-iid")
    run.best.value, run.rounds[3].metrics["accuracy"]
    run.to_pandas().groupby("client")["metadata.training_time"].mean()

A run that is still going on, was killed, or was written by a newer version can be read, too:
what is not known is left out.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fedwaggle.errors import RunError
from fedwaggle.runs.events import (
    BestModel,
    CheckpointSaved,
    ClientQuarantined,
    ClientUpdated,
    DecisionTaken,
    Event,
    MetricValue,
    NotRepeatable,
    RoundFinished,
    RoundStarted,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    UnknownEvent,
    current_events,
    parse_line,
)
from fedwaggle.runs.lines import Lines
from fedwaggle.runs.metadata_fields import fields
from fedwaggle.runs.paths import EVENTS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RoundRecord", "RunRecord", "RunStatus", "is_being_written", "load", "record_of"]

RunStatus: TypeAlias = Literal["running", "finished", "failed", "interrupted"]


@dataclass(frozen=True)
class RoundRecord:
    """A round: what was asked of whom, and what came of it.

    Attributes
    ----------
    round : int
        The round; 0 is the initial model.
    finished : bool
        Whether it has ended.
    learning_rate : float | None
        Learning rate that clients were sent.
    clients : tuple[str, ...]
        Names of the sampled clients.
    cooling_down : tuple[str, ...]
        Clients that were left out, since they did not answer before.
    updates : tuple[ClientUpdated, ...]
        The admitted updates, with metrics and metadata.
    quarantined : tuple[ClientQuarantined, ...]
        The refused replies, with their reasons.
    missing : tuple[str, ...]
        Clients that never answered.
    evaluate_missing : tuple[str, ...]
        Clients that were to evaluate and never answered.
    decisions : tuple[DecisionTaken, ...]
        What policies decided after the round.
    metrics : dict[str, float | int | list]
        The server's evaluation of the new global model.
    train_metrics : dict[str, float | int | list]
        The clients' training metrics, averaged.
    evaluate_metrics : dict[str, float | int | list]
        The clients' evaluation metrics, averaged.
    skipped : bool
        Whether the model was kept: there were too few updates, or no step to take.
    bytes_down : int
        Size of the messages to the clients together.
    bytes_up : int
        Size of their replies together.
    phases : dict[str, float]
        Seconds of each phase.
    seconds : float
        Wall time (s); 0 until it has ended.
    """

    round: int
    finished: bool = False
    learning_rate: float | None = None
    clients: tuple[str, ...] = ()
    cooling_down: tuple[str, ...] = ()
    updates: tuple[ClientUpdated, ...] = ()
    quarantined: tuple[ClientQuarantined, ...] = ()
    missing: tuple[str, ...] = ()
    evaluate_missing: tuple[str, ...] = ()
    decisions: tuple[DecisionTaken, ...] = ()
    metrics: dict[str, MetricValue] = field(default_factory=dict)
    train_metrics: dict[str, MetricValue] = field(default_factory=dict)
    evaluate_metrics: dict[str, MetricValue] = field(default_factory=dict)
    skipped: bool = False
    bytes_down: int = 0
    bytes_up: int = 0
    phases: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class RunRecord:
    """A run.

    Attributes
    ----------
    path : Path
        Its folder.
    status : str
        ``running``, ``finished``, ``failed``, or ``interrupted``: its process has ended
        without a word.
    name : str
        Name of the run.
    strategy : str
        Class of the strategy.
    engine : str
        What carries the messages.
    seed : int | None
        The seed; none before the run has begun.
    config : dict[str, Any]
        The run config; what a resume changed is in it.
    versions : dict[str, str]
        Versions of Python, of this library and of those below it.
    nodes : int | None
        Nodes that were available at the start, if known.
    num_rounds : int
        Rounds that are asked for.
    started : datetime | None
        When it began (UTC).
    resumed : int
        How often it was resumed.
    rounds : tuple[RoundRecord, ...]
        The rounds in their order, the initial model first; the last may be unfinished.
    best : BestModel | None
        The best model on disk: round, metric, value, sha256.
    metrics : dict[str, float | int | list]
        The server's evaluation of the last model.
    sha256 : str
        SHA-256 of the last model; empty until the run has finished.
    error : str
        Why it failed; empty if it did not.
    not_repeatable : tuple[str, ...]
        Why another run with the same seed may end with another model; empty if none may.
    damaged_lines : int
        Lines of the record that were skipped, because they cannot be read.
    """

    path: Path
    status: RunStatus = "interrupted"
    name: str = ""
    strategy: str = ""
    engine: str = ""
    seed: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    nodes: int | None = None
    num_rounds: int = 0
    started: datetime | None = None
    resumed: int = 0
    rounds: tuple[RoundRecord, ...] = ()
    best: BestModel | None = None
    metrics: dict[str, MetricValue] = field(default_factory=dict)
    sha256: str = ""
    error: str = ""
    damaged_lines: int = 0
    not_repeatable: tuple[str, ...] = ()

    @property
    def repeatable(self) -> bool:
        """Whether another run with the same seed ends with the same model, as far as is known."""
        return not self.not_repeatable

    @property
    def seconds(self) -> float:
        """Wall time of the finished rounds together (s); pauses do not count."""
        return sum(each.seconds for each in self.rounds)

    @property
    def rounds_done(self) -> int:
        """Rounds that have ended; the initial model is none."""
        return sum(each.finished and each.round > 0 for each in self.rounds)

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with a row for each client update.

        Returns
        -------
        DataFrame
            Columns ``round``, ``client``, ``node_id``, ``num_examples``, ``seconds``,
            ``bytes``, and ``metrics.<name>`` and ``metadata.<field>`` for whatever clients
            sent. A field of an object in the metadata has its dotted name, such as
            ``metadata.gpu.heat``; a history is one cell, a dict or a list as it was sent.
        """
        import pandas as pd

        rows = [_update_row(update) for each in self.rounds for update in each.updates]
        return pd.DataFrame(rows, columns=_columns(_UPDATE_COLUMNS, rows))

    def rounds_to_pandas(self) -> pd.DataFrame:
        """Return a table with a row for each finished round.

        Returns
        -------
        DataFrame
            Columns ``round``, ``learning_rate``, ``updates``, ``quarantined``, ``missing``,
            ``evaluate_missing`` (counts), ``skipped``, ``bytes_down``, ``bytes_up``, ``seconds``,
            and ``metrics.<name>``, ``train_metrics.<name>``, ``evaluate_metrics.<name>`` and
            ``phases.<name>`` (s).
        """
        import pandas as pd

        rows = [_round_row(each) for each in self.rounds if each.finished]
        return pd.DataFrame(rows, columns=_columns(_ROUND_COLUMNS, rows))


def load(path: str | Path) -> RunRecord:
    """Read a run.

    Parameters
    ----------
    path : str | Path
        The folder of the run.

    Returns
    -------
    RunRecord
        What is on disk by now.

    Raises
    ------
    RunError
        If there is no run in that folder. The message names the file.
    """
    path = Path(path)
    lines = Lines(path / EVENTS)
    record = record_of(path, lines.read(parse_line), is_live=is_being_written(path))
    return replace(record, damaged_lines=lines.damaged)


def record_of(
    path: Path, events: Iterable[Event | UnknownEvent], *, is_live: bool = False
) -> RunRecord:
    """Return the record that a run's events make.

    Parameters
    ----------
    path : Path
        The folder of the run.
    events : Iterable[Event | UnknownEvent]
        All its events, superseded ones, too.
    is_live : bool (default: False)
        Whether a process is writing it.
    """
    current = [each for each in current_events(events) if not isinstance(each, UnknownEvent)]
    by_round: dict[int, list[Event]] = {}
    for event in current:
        if isinstance(event, _ROUND_EVENTS):
            by_round.setdefault(event.round, []).append(event)
    rounds = tuple(_round_record(each, by_round[each]) for each in sorted(by_round))
    status: RunStatus = "running" if is_live else "interrupted"
    return _run_record(RunRecord(path, status=status, name=path.name, rounds=rounds), current)


def is_being_written(path: Path) -> bool:
    """Return whether a process has a run open: it holds a lock on the events until it ends.

    Raises
    ------
    RunError
        If there is no run in that folder.
    """
    try:
        file = (path / EVENTS).open("rb")  # closed below
    except OSError as error:
        raise RunError(f"{path}: expected the folder of a run, but {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks: nobody can tell
            return False
    return False


_ROUND_EVENTS = (RoundStarted, ClientUpdated, ClientQuarantined, DecisionTaken, RoundFinished)


def _round_record(server_round: int, events: Sequence[Event]) -> RoundRecord:
    record = RoundRecord(
        server_round,
        updates=tuple(each for each in events if isinstance(each, ClientUpdated)),
        quarantined=tuple(each for each in events if isinstance(each, ClientQuarantined)),
        decisions=tuple(each for each in events if isinstance(each, DecisionTaken)),
    )
    for event in events:
        if isinstance(event, RoundStarted):
            record = replace(
                record,
                learning_rate=event.learning_rate,
                clients=tuple(event.clients),
                cooling_down=tuple(event.cooling_down),
                bytes_down=event.bytes_down,
            )
        elif isinstance(event, RoundFinished):
            record = _finished(record, event)
    return record


def _finished(record: RoundRecord, event: RoundFinished) -> RoundRecord:
    started_rate = record.learning_rate
    return replace(
        record,
        finished=True,
        learning_rate=started_rate if event.learning_rate is None else event.learning_rate,
        metrics=event.metrics,
        train_metrics=event.train_metrics,
        evaluate_metrics=event.evaluate_metrics,
        missing=tuple(event.missing),
        evaluate_missing=tuple(event.evaluate_missing),
        skipped=event.skipped,
        bytes_up=event.bytes_up,
        phases=event.phases,
        seconds=event.seconds,
    )


def _run_record(run: RunRecord, events: Iterable[Event]) -> RunRecord:
    """Put what the events say of the whole run into its record."""
    for event in events:
        match event:
            case RunStarted():
                run = replace(run, started=event.time, **_asked(event))
            case RunResumed():
                changed = {key: values[-1] for key, values in event.changes.items() if values}
                run = replace(
                    run,
                    resumed=run.resumed + 1,
                    engine=event.engine,
                    num_rounds=event.num_rounds,
                    config=run.config | changed,
                )
            case CheckpointSaved():
                told = event.model_dump(include={"round", "metric", "value", "sha256"})
                run = replace(run, best=BestModel.model_validate(told))
            case RoundFinished():
                run = replace(run, metrics=event.metrics)
            case RunFinished():
                run = replace(
                    run,
                    status="finished",
                    best=event.best or run.best,
                    metrics=event.metrics,
                    sha256=event.sha256,
                )
            case NotRepeatable():
                run = replace(run, not_repeatable=(*run.not_repeatable, event.reason))
            case RunFailed():
                run = replace(run, status="failed", error=event.error)
    return run


def _asked(event: RunStarted) -> dict[str, Any]:
    names = ("name", "strategy", "engine", "seed", "config", "versions", "nodes", "num_rounds")
    return {name: getattr(event, name) for name in names}


_UPDATE_COLUMNS = ["round", "client", "node_id", "num_examples", "seconds", "bytes"]
_ROUND_COLUMNS = [
    *("round", "learning_rate", "updates", "quarantined", "missing", "evaluate_missing", "skipped"),
    *("bytes_down", "bytes_up", "seconds"),
]


def _update_row(update: ClientUpdated) -> dict[str, Any]:
    row = {name: getattr(update, name) for name in _UPDATE_COLUMNS}
    told = dict(fields(update.metadata or {}))
    return row | _prefixed("metrics", update.metrics) | _prefixed("metadata", told)


def _round_row(told: RoundRecord) -> dict[str, Any]:
    row = {name: getattr(told, name) for name in _ROUND_COLUMNS}
    counted = ("updates", "quarantined", "missing", "evaluate_missing")
    row |= {name: len(row[name]) for name in counted}
    for group in ("metrics", "train_metrics", "evaluate_metrics", "phases"):
        row |= _prefixed(group, getattr(told, group))
    return row


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def _columns(known: list[str], rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the known columns, there even without rows, and then the others as they come."""
    return list(dict.fromkeys([*known, *(name for row in rows for name in row)]))
