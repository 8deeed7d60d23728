"""From the events of a run to its story: one frozen value that pictures are drawn from.

This is a pure function of the events. It reads runs that go on, that failed, that were resumed,
and events that this version does not know.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Generic, TypeVar

from fedwaggle.numbers import as_float, is_ordinary
from fedwaggle.runs.events import (
    BestModel,
    CheckpointFailed,
    CheckpointSaved,
    ClientEvaluated,
    ClientQuarantined,
    ClientUpdated,
    DecisionTaken,
    Event,
    LabelsCounted,
    NotRepeatable,
    RoundFinished,
    RoundStarted,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    SiteMeasures,
    SnapshotFailed,
    UnknownEvent,
)
from fedwaggle.runs.reading import marked_events
from fedwaggle.runs.record import best_of
from fedwaggle.runs.report.fields import FieldTable
from fedwaggle.runs.report.words import natural_key

__all__ = ["Cell", "Latest", "Refusal", "Round", "RunStory", "State", "tell"]

T = TypeVar("T")

MOST_KEPT = 400
_MOST_EVALUATED = 8  # metrics of clients' evaluations


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


@dataclass
class Latest(Generic[T]):
    """The last few of many: no page shows more of them, so no more are held.

    Attributes
    ----------
    shown : deque[T]
        The last ones, in their order.
    count : int
        How many there were.
    kinds : Counter[str]
        How many of each kind.
    """

    shown: deque[T] = field(default_factory=lambda: deque(maxlen=MOST_KEPT))
    count: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, one: T, kind: str = "") -> None:
        """Add one."""
        self.shown.append(one)
        self.count += 1
        self.kinds[kind] += 1


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
    norms : dict[int, float]
        Length of each update's change to the model, where it was measured; by row.
    label_counts : dict[str, dict[str, int]]
        Examples of each class that a client trains on, by its name.
    evaluations : dict[str, dict[int, dict[str, float]]]
        What clients measured of the model: metric to round to client to value.
    sites : dict[str, SiteMeasures]
        What the policy of each client's site last did to its reply, by client.
    decisions, quarantines, refusals, troubles : Latest
        The last of them, and their number: by code, where they have one.
    bounded : Latest
        The last updates that were out of line and count for less, and their number.
    quarantined_in : Counter[str]
        Refused replies by phase.
    checkpoint : CheckpointSaved | None
        The last best model that was written.
    superseded : int
        Events that a later resume replaced.
    damaged_lines : int
        Lines that were skipped, because they cannot be read.
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
    norms: dict[int, float] = field(default_factory=dict)
    label_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    evaluations: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)
    sites: dict[str, SiteMeasures] = field(default_factory=dict)
    decisions: Latest[DecisionTaken] = field(default_factory=Latest)
    quarantines: Latest[ClientQuarantined] = field(default_factory=Latest)
    bounded: Latest[ClientUpdated] = field(default_factory=Latest)
    quarantined_in: Counter[str] = field(default_factory=Counter)
    refusals: Latest[Refusal] = field(default_factory=Latest)
    troubles: Latest[CheckpointFailed | SnapshotFailed] = field(default_factory=Latest)
    checkpoint: CheckpointSaved | None = None
    superseded: int = 0
    damaged_lines: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    wall_seconds: float = 0.0

    @property
    def best(self) -> BestModel | None:
        """The best model on disk."""
        return best_of(self.checkpoint, self.ended)

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


def tell(events: Iterable[Event | UnknownEvent], resumes: Sequence[int] | None = None) -> RunStory:
    """Return the story that the events of one run tell.

    Parameters
    ----------
    events : Iterable[Event | UnknownEvent]
        All of them, in their order, with those that a resume superseded.
    resumes : Sequence[int] | None
        After which round each resume among them went on. With it, the events may be streamed:
        none is held.

    Examples
    --------
    >>> begun = RoundStarted(round=1, learning_rate=0.1, sampled=1, available=2, clients=["a"])
    >>> story = tell([begun])
    >>> story.clients, story.cells[0].state.name
    (['a'], 'WAITING')
    """
    if resumes is None:
        events = list(events)
        resumes = [event.round for event in events if isinstance(event, RunResumed)]
    teller = _Teller()
    for event, counts in marked_events(events, resumes):
        teller.pass_time(event)
        if counts:
            teller.hear(event)
        else:
            teller.superseded += 1
    return teller.story()


class _Teller:
    """Collects events into the parts of a story."""

    def __init__(self) -> None:
        self.started: RunStarted | None = None
        self.ended: RunFinished | RunFailed | None = None
        self.checkpoint: CheckpointSaved | None = None
        self.resumes: list[RunResumed] = []
        self.not_repeatable: list[NotRepeatable] = []
        self.decisions: Latest[DecisionTaken] = Latest()
        self.quarantines: Latest[ClientQuarantined] = Latest()
        self.bounded: Latest[ClientUpdated] = Latest()
        self.quarantined_in: Counter[str] = Counter()
        self.refusals: Latest[Refusal] = Latest()
        self.troubles: Latest[CheckpointFailed | SnapshotFailed] = Latest()
        self.round_starts: dict[int, RoundStarted] = {}
        self.round_ends: dict[int, RoundFinished] = {}
        self.cells: list[Cell] = []
        self.rows: dict[tuple[int, str], int] = {}
        self.fields = FieldTable()
        self.norms: dict[int, float] = {}
        self.label_counts: dict[str, dict[str, int]] = {}
        self.evaluations: dict[str, dict[int, dict[str, float]]] = {}
        self.sites: dict[str, SiteMeasures] = {}
        self.unknown: Counter[str] = Counter()
        self.superseded = 0
        self.wall_seconds = 0.0  # of the processes before this one
        self.began: datetime | None = None  # this process
        self.last: datetime | None = None

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
            case LabelsCounted():
                self.label_counts.update(event.clients)
            case ClientEvaluated():
                self._evaluation(event)
            case RunResumed():
                self.resumes.append(event)
            case RunFinished() | RunFailed():
                self.ended = event
            case NotRepeatable():
                self.not_repeatable.append(event)
            case DecisionTaken():
                self.decisions.add(event)
            case CheckpointSaved():
                self.checkpoint = event
            case CheckpointFailed() | SnapshotFailed():
                self.troubles.add(event)

    def pass_time(self, event: Event | UnknownEvent) -> None:
        """Count the time that processes worked, without the pauses between them."""
        if isinstance(event, UnknownEvent):
            return
        if isinstance(event, RunStarted | RunResumed) or self.began is None:
            self.wall_seconds += self._since_began()
            self.began = event.time
        self.last = event.time

    def _since_began(self) -> float:
        return (self.last - self.began).total_seconds() if self.began and self.last else 0.0

    def story(self) -> RunStory:
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
            norms=self.norms,
            label_counts=self.label_counts,
            sites=self.sites,
            evaluations=self.evaluations,
            decisions=self.decisions,
            quarantines=self.quarantines,
            bounded=self.bounded,
            quarantined_in=self.quarantined_in,
            refusals=self.refusals,
            troubles=self.troubles,
            checkpoint=self.checkpoint,
            superseded=self.superseded,
            unknown=self.unknown,
            wall_seconds=max(0.0, self.wall_seconds + self._since_began()),
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
        if event.norm is not None and is_ordinary(event.norm):
            self.norms[row] = event.norm
        if event.site:
            self.sites[event.client] = event.site
        if event.is_bounded:
            self.bounded.add(event)
        if problem := event.metadata_error:
            refusal = Refusal(
                event.round, event.client, problem.code, problem.message, problem.paths
            )
            self.refusals.add(refusal, problem.code)

    def _evaluation(self, event: ClientEvaluated) -> None:
        for name, value in event.metrics.items():
            if isinstance(value, list) or not is_ordinary(as_float(value)):
                continue
            if name in self.evaluations or len(self.evaluations) < _MOST_EVALUATED:
                rounds = self.evaluations.setdefault(name, {})
                rounds.setdefault(event.round, {})[event.client] = as_float(value)

    def _quarantine(self, event: ClientQuarantined) -> None:
        self.quarantines.add(event, event.code)
        self.quarantined_in[event.phase] += 1
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
