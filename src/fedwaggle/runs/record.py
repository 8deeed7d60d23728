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
    ClientEvaluated,
    ClientQuarantined,
    ClientUpdated,
    DecisionTaken,
    Event,
    LabelsCounted,
    MetricValue,
    NotRepeatable,
    RoundFinished,
    RoundStarted,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    UnknownEvent,
    parse_line,
)
from fedwaggle.runs.lines import Lines
from fedwaggle.runs.metadata_fields import fields
from fedwaggle.runs.paths import EVENTS

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "RecordReader",
    "RoundRecord",
    "RunRecord",
    "RunStatus",
    "best_of",
    "config_of",
    "is_being_written",
    "load",
    "record_of",
    "status_of",
]

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
    evaluations : tuple[ClientEvaluated, ...]
        What clients measured of the model, each on its own data.
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
    evaluations: tuple[ClientEvaluated, ...] = ()
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
    app : str
        The app's package, if it is known.
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
    label_counts : dict[str, dict[str, int]]
        Examples of each class that a client trains on, by its name; empty if that is not known.
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
    app: str = ""
    strategy: str = ""
    engine: str = ""
    seed: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    nodes: int | None = None
    label_counts: dict[str, dict[str, int]] = field(default_factory=dict)
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
    reader = RecordReader(path)
    for event in events:
        reader.add(event)
    return reader.record(is_live=is_live)


class RecordReader:
    """Reads the events of a run one by one; the record is known after each.

    What a resume supersedes is forgotten when the resume is read, so a run can be followed while
    it goes on, and each event is looked at once.

    Parameters
    ----------
    path : Path
        The folder of the run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started: RunStarted | None = None
        self._label_counts: dict[str, dict[str, int]] = {}
        self._ended: RunFinished | RunFailed | None = None
        self._resumes: list[RunResumed] = []
        self._not_repeatable: list[NotRepeatable] = []
        self._checkpoints: list[CheckpointSaved] = []
        self._events: dict[int, list[Event]] = {}  # of each round
        self._rounds: dict[int, RoundRecord] = {}  # those of them that are up to date

    def add(self, event: Event | UnknownEvent) -> None:
        """Take the next event; one of a newer version is skipped."""
        match event:
            case RoundStarted() | ClientUpdated() | ClientEvaluated() | ClientQuarantined():
                self._add_to_round(event.round, event)
            case DecisionTaken() | RoundFinished():
                self._add_to_round(event.round, event)
            case CheckpointSaved():
                self._checkpoints.append(event)
            case NotRepeatable():
                self._not_repeatable.append(event)
            case RunStarted():
                self._started = event
            case LabelsCounted():
                self._label_counts.update(event.clients)
            case RunResumed():
                self._supersede(event.round)
                self._resumes.append(event)
            case RunFinished() | RunFailed():
                self._ended = event

    def record(self, *, is_live: bool = False) -> RunRecord:
        """Return the record as of the last event.

        Parameters
        ----------
        is_live : bool (default: False)
            Whether a process is writing the run.
        """
        for number in self._events.keys() - self._rounds.keys():
            self._rounds[number] = _round_record(number, self._events[number])
        rounds = tuple(self._rounds[number] for number in sorted(self._rounds))
        finished = [each for each in rounds if each.finished]
        ended = self._ended
        return RunRecord(
            self._path,
            status=status_of(ended, is_live=is_live),
            rounds=rounds,
            best=best_of(self._checkpoints[-1] if self._checkpoints else None, ended),
            metrics=ended.metrics
            if isinstance(ended, RunFinished)
            else (finished[-1].metrics if finished else {}),
            sha256=ended.sha256 if isinstance(ended, RunFinished) else "",
            error=ended.error if isinstance(ended, RunFailed) else "",
            label_counts=dict(self._label_counts),
            resumed=len(self._resumes),
            not_repeatable=tuple(each.reason for each in self._not_repeatable),
            **self._asked(),
        )

    def _add_to_round(self, number: int, event: Event) -> None:
        self._events.setdefault(number, []).append(event)
        self._rounds.pop(number, None)

    def _supersede(self, server_round: int) -> None:
        """Forget what a run that goes on after a round will do again."""
        for number in [number for number in self._events if number > server_round]:
            del self._events[number]
            self._rounds.pop(number, None)
        self._resumes = [each for each in self._resumes if each.round <= server_round]
        self._checkpoints = [each for each in self._checkpoints if each.round <= server_round]
        self._not_repeatable = [each for each in self._not_repeatable if each.round <= server_round]
        self._ended = None

    def _asked(self) -> dict[str, Any]:
        """Return what the run was asked, with what resumes have changed."""
        begun = self._started
        if begun is None:
            return {"name": self._path.name, **self._resumed()}
        return {
            "name": begun.name,
            "app": begun.app,
            "strategy": begun.strategy,
            "engine": begun.engine,
            "seed": begun.seed,
            "versions": begun.versions,
            "nodes": begun.nodes,
            "num_rounds": begun.num_rounds,
            "started": begun.time,
            **self._resumed(),
        }

    def _resumed(self) -> dict[str, Any]:
        config = config_of(self._started, self._resumes)
        if not self._resumes:
            return {"config": config}
        last = self._resumes[-1]
        return {"config": config, "engine": last.engine, "num_rounds": last.num_rounds}


def status_of(ended: RunFinished | RunFailed | None, *, is_live: bool) -> RunStatus:
    """Return how a run stands, by its end and by whether a process is writing it.

    Examples
    --------
    >>> status_of(None, is_live=False)
    'interrupted'
    """
    if ended is None:
        return "running" if is_live else "interrupted"
    return "finished" if isinstance(ended, RunFinished) else "failed"


def best_of(
    saved: CheckpointSaved | None, ended: RunFinished | RunFailed | None
) -> BestModel | None:
    """Return the best model on disk, by the last one that was written and by the run's end."""
    if isinstance(ended, RunFinished) and ended.best:
        return ended.best
    if saved is None:
        return None
    return BestModel(round=saved.round, metric=saved.metric, value=saved.value, sha256=saved.sha256)


def config_of(started: RunStarted | None, resumes: Sequence[RunResumed]) -> dict[str, Any]:
    """Return the run config as the last process was given it."""
    config = dict(started.config) if started else {}
    for each in resumes:
        config |= {key: values[-1] for key, values in each.changes.items() if values}
    return config


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


def _round_record(server_round: int, events: Sequence[Event]) -> RoundRecord:
    record = RoundRecord(
        server_round,
        updates=tuple(each for each in events if isinstance(each, ClientUpdated)),
        evaluations=tuple(each for each in events if isinstance(each, ClientEvaluated)),
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


_UPDATE_COLUMNS = ["round", "client", "node_id", "num_examples", "seconds", "bytes"]
_ROUND_COLUMNS = [
    *("round", "learning_rate", "updates", "quarantined", "missing", "evaluate_missing", "skipped"),
    *("bytes_down", "bytes_up", "seconds"),
]


def _update_row(update: ClientUpdated) -> dict[str, Any]:
    row = {name: getattr(update, name) for name in _UPDATE_COLUMNS}
    metadata = dict(fields(update.metadata or {}))
    return row | _prefixed("metrics", update.metrics) | _prefixed("metadata", metadata)


def _round_row(record: RoundRecord) -> dict[str, Any]:
    row = {name: getattr(record, name) for name in _ROUND_COLUMNS}
    counted = ("updates", "quarantined", "missing", "evaluate_missing")
    row |= {name: len(row[name]) for name in counted}
    for group in ("metrics", "train_metrics", "evaluate_metrics", "phases"):
        row |= _prefixed(group, getattr(record, group))
    return row


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def _columns(known: list[str], rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the known columns, there even without rows, and then the others as they come."""
    return list(dict.fromkeys([*known, *(name for row in rows for name in row)]))
