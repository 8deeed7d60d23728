"""From the events of a run to its story: one frozen value that pictures are drawn from.

This is a pure function of the events. It reads runs that go on, that failed, that were resumed,
and events that this version does not know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

from fedwaggle.runs.events import (
    BestModel,
    CheckpointFailed,
    CheckpointSaved,
    ClientQuarantined,
    ClientUpdated,
    DecisionTaken,
    Event,
    NotRepeatable,
    RoundFinished,
    RoundStarted,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    SnapshotFailed,
    UnknownEvent,
    current_events,
)
from fedwaggle.runs.report.fields import FieldTable
from fedwaggle.runs.report.stats import as_float
from fedwaggle.runs.report.words import natural_key

__all__ = ["Cell", "Refusal", "Round", "RunStory", "State", "tell"]


class State(IntEnum):
    """What became of a client in a round that it was sampled for."""

    WAITING = 1
    ADMITTED = 2  # its metadata has no word on convergence
    LEARNING = 3
    CONVERGED = 4
    QUARANTINED = 5
    MISSING = 6

    @property
    def code(self) -> str:
        """Its letter in the page's data."""
        return self.name[0].lower()

    @property
    def admitted(self) -> bool:
        """Whether the client's update was used."""
        return self in (State.ADMITTED, State.LEARNING, State.CONVERGED)


@dataclass(slots=True)
class Cell:
    """One client in one round."""

    client: str
    round: int
    state: State = State.WAITING
    seconds: float | None = None  # on the server's clock
    num_examples: float | None = None
    bytes: int = 0


@dataclass(frozen=True)
class Refusal:
    """A client's metadata that was refused, while its weights were used."""

    round: int
    client: str
    code: str
    message: str
    paths: Sequence[str]


@dataclass(frozen=True)
class Round:
    """A round: how it began, and how it ended if it did."""

    started: RoundStarted | None = None
    finished: RoundFinished | None = None


@dataclass(frozen=True)
class RunStory:
    """A run as far as it is recorded.

    Attributes
    ----------
    started : RunStarted | None
        Its beginning; None in a file that has none yet.
    resumes : Sequence[RunResumed]
        Each time it went on after an interruption.
    ended : RunFinished | RunFailed | None
        Its end, if there is one.
    not_repeatable : Sequence[NotRepeatable]
        Why another run with the same seed may end with another model.
    rounds : dict[int, Round]
        By number, in order; 0 is the initial model.
    cells : Sequence[Cell]
        One for each client of each cohort. The rows of ``fields`` are positions in it.
    clients : Sequence[str]
        Names, in the order in which people count.
    fields : FieldTable
        What clients said about themselves.
    checkpoint : CheckpointSaved | None
        The last best model that was written.
    superseded : int
        Events that a later resume replaced.
    unknown : Counter[str]
        Events of a kind or version that this reader does not know, by kind.
    wall_seconds : float
        From the start to the end of each process that worked on the run, together.
    """

    started: RunStarted | None = None
    resumes: Sequence[RunResumed] = ()
    ended: RunFinished | RunFailed | None = None
    not_repeatable: Sequence[NotRepeatable] = ()
    rounds: dict[int, Round] = field(default_factory=dict)
    cells: Sequence[Cell] = ()
    clients: Sequence[str] = ()
    fields: FieldTable = field(default_factory=FieldTable)
    decisions: Sequence[DecisionTaken] = ()
    quarantines: Sequence[ClientQuarantined] = ()
    refusals: Sequence[Refusal] = ()
    troubles: Sequence[CheckpointFailed | SnapshotFailed] = ()
    checkpoint: CheckpointSaved | None = None
    superseded: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    wall_seconds: float = 0.0

    @property
    def best(self) -> BestModel | None:
        """The best model on disk."""
        if isinstance(self.ended, RunFinished) and self.ended.best:
            return self.ended.best
        saved = self.checkpoint
        if saved is None:
            return None
        return BestModel(
            round=saved.round, metric=saved.metric, value=saved.value, sha256=saved.sha256
        )

    @property
    def finished_rounds(self) -> list[RoundFinished]:
        """The rounds that ended, in order."""
        return [r.finished for r in self.rounds.values() if r.finished]

    @property
    def missing(self) -> int:
        """How often a sampled client never answered."""
        return sum(cell.state is State.MISSING for cell in self.cells)

    @property
    def evaluate_missing(self) -> int:
        """How often a client that was to evaluate never answered."""
        return sum(len(end.evaluate_missing) for end in self.finished_rounds)

    @property
    def knows_convergence(self) -> bool:
        """Whether any client said whether it has converged."""
        return any(cell.state in (State.LEARNING, State.CONVERGED) for cell in self.cells)


def tell(events: Sequence[Event | UnknownEvent]) -> RunStory:
    """Return the story that the events of one run tell.

    Parameters
    ----------
    events : Sequence[Event | UnknownEvent]
        All of them, in their order, with those that a resume superseded.

    Examples
    --------
    >>> begun = RoundStarted(round=1, learning_rate=0.1, sampled=1, available=2, clients=["a"])
    >>> story = tell([begun])
    >>> story.clients, story.cells[0].state.name
    (['a'], 'WAITING')
    """
    current = current_events(events)
    teller = _Teller()
    for event in current:
        teller.hear(event)
    return teller.story(
        superseded=len(events) - len(current),
        wall_seconds=_wall_seconds(events),
    )


class _Teller:
    """Collects events into the parts of a story."""

    def __init__(self) -> None:
        self.started: RunStarted | None = None
        self.ended: RunFinished | RunFailed | None = None
        self.checkpoint: CheckpointSaved | None = None
        self.resumes: list[RunResumed] = []
        self.not_repeatable: list[NotRepeatable] = []
        self.decisions: list[DecisionTaken] = []
        self.quarantines: list[ClientQuarantined] = []
        self.refusals: list[Refusal] = []
        self.troubles: list[CheckpointFailed | SnapshotFailed] = []
        self.round_starts: dict[int, RoundStarted] = {}
        self.round_ends: dict[int, RoundFinished] = {}
        self.cells: list[Cell] = []
        self.rows: dict[tuple[int, str], int] = {}
        self.fields = FieldTable()
        self.unknown: Counter[str] = Counter()

    def hear(self, event: Event | UnknownEvent) -> None:
        """Take one event."""
        if isinstance(event, UnknownEvent):
            self.unknown[event.event] += 1
            return
        match event:
            case ClientUpdated():
                self._update(event)
            case ClientQuarantined():
                self._quarantine(event)
            case RoundStarted():
                self.round_starts[event.round] = event
                for client in event.clients:
                    self._cell(event.round, client)
            case RoundFinished():
                self._end_round(event)
            case RunStarted():
                self.started = event
            case RunResumed():
                self.resumes.append(event)
            case RunFinished() | RunFailed():
                self.ended = event
            case NotRepeatable():
                self.not_repeatable.append(event)
            case DecisionTaken():
                self.decisions.append(event)
            case CheckpointSaved():
                self.checkpoint = event
            case CheckpointFailed() | SnapshotFailed():
                self.troubles.append(event)

    def story(self, *, superseded: int, wall_seconds: float) -> RunStory:
        """Return what was heard."""
        numbers = sorted({*self.round_starts, *self.round_ends})
        return RunStory(
            started=self.started,
            resumes=self.resumes,
            ended=self.ended,
            not_repeatable=self.not_repeatable,
            rounds={n: Round(self.round_starts.get(n), self.round_ends.get(n)) for n in numbers},
            cells=self.cells,
            clients=sorted({cell.client for cell in self.cells}, key=natural_key),
            fields=self.fields,
            decisions=self.decisions,
            quarantines=self.quarantines,
            refusals=self.refusals,
            troubles=self.troubles,
            checkpoint=self.checkpoint,
            superseded=superseded,
            unknown=self.unknown,
            wall_seconds=wall_seconds,
        )

    def _row(self, server_round: int, client: str) -> int:
        key = (server_round, client)
        if key not in self.rows:
            self.rows[key] = len(self.cells)
            self.cells.append(Cell(client, server_round))
        return self.rows[key]

    def _cell(self, server_round: int, client: str) -> Cell:
        return self.cells[self._row(server_round, client)]

    def _update(self, event: ClientUpdated) -> None:
        row = self._row(event.round, event.client)
        metadata = event.metadata or {}
        converged = metadata.get("converged")
        if isinstance(converged, bool):
            state = State.CONVERGED if converged else State.LEARNING
        else:
            state = State.ADMITTED
        cell = self.cells[row]
        cell.state, cell.seconds, cell.bytes = state, event.seconds, event.bytes
        cell.num_examples = as_float(event.num_examples)
        self.fields.add(row, metadata)
        if problem := event.metadata_error:
            self.refusals.append(
                Refusal(event.round, event.client, problem.code, problem.message, problem.paths)
            )

    def _quarantine(self, event: ClientQuarantined) -> None:
        self.quarantines.append(event)
        if event.phase == "train":  # who failed to evaluate may well have trained
            cell = self._cell(event.round, event.client)
            cell.state, cell.seconds = State.QUARANTINED, event.seconds

    def _end_round(self, event: RoundFinished) -> None:
        self.round_ends[event.round] = event
        begun = self.round_starts.get(event.round)
        for client in dict.fromkeys([*(begun.clients if begun else ()), *event.missing]):
            cell = self._cell(event.round, client)
            if cell.state is State.WAITING:
                cell.state = State.MISSING


def _wall_seconds(events: Sequence[Event | UnknownEvent]) -> float:
    """Return how long the processes worked, without the pauses between them."""
    total = 0.0
    began: datetime | None = None
    last: datetime | None = None
    for event in events:
        if isinstance(event, UnknownEvent):
            continue
        if isinstance(event, RunStarted | RunResumed) or began is None:
            total += (last - began).total_seconds() if began and last else 0.0
            began = event.time
        last = event.time
    total += (last - began).total_seconds() if began and last else 0.0
    return max(0.0, total)
