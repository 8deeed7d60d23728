"""Clients and rounds for the page's script: compact columns that filters work on.

A page holds at most about 4 MB of them. A run that has more gives all rounds of those clients
that are worth a look first: with refused or missing replies, then slow ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedwaggle.runs.report.charts.figure import rounded
from fedwaggle.runs.report.stats import far_above, groups, spread
from fedwaggle.runs.report.story import RunStory, State
from fedwaggle.text import printable

__all__ = [
    "ClientFacts",
    "Columns",
    "client_facts",
    "columns",
    "history_steps",
    "slow_rows",
    "thin",
    "training_seconds",
]

_MOST_VALUES = 650_000
_MOST_ROWS_DRAWN = 120
_MOST_HISTORY_STEPS = 20
_MOST_POINTS = 2_500


@dataclass
class ClientFacts:
    """One client over all rounds."""

    name: str
    id: int  # its place among the clients of the run
    rows: list[int]  # its cells
    admitted: int = 0
    converged: int = 0
    quarantined: int = 0
    missing: int = 0
    slow: int = 0  # rounds in which its training took far longer than the others'
    seconds: float | None = None  # median training time
    num_examples: float | None = None  # of its last update
    last_converged: bool | None = None

    @property
    def worth(self) -> tuple[int, int, int]:
        """Sort key: the clients that are worth a look first."""
        return (-(self.quarantined + self.missing), -self.slow, self.id)


def training_seconds(story: RunStory) -> dict[int, float]:
    """Return how long each update took to train, in seconds, by cell.

    It is what clients say, or else the time from sending to the reply on the server's clock.
    """
    said = story.fields.numbers.get("training_time")
    if said:
        return said
    cells = enumerate(story.cells)
    return {row: c.seconds for row, c in cells if c.state.admitted and c.seconds is not None}


def slow_rows(story: RunStory, seconds: dict[int, float]) -> list[int]:
    """Return the cells whose training took far longer than the others' of the same round."""
    rows = np.fromiter(seconds, dtype=np.int64, count=len(seconds))
    values = np.fromiter(seconds.values(), dtype=np.float64, count=len(seconds))
    rounds = np.array([story.cells[row].round for row in rows], dtype=np.int64)
    return [int(rows[where[i]]) for _, where in groups(rounds) for i in far_above(values[where])]


def client_facts(story: RunStory) -> list[ClientFacts]:
    """Return what became of each client over all rounds, in the order of their names."""
    seconds = training_seconds(story)
    slow = set(slow_rows(story, seconds))
    found = {name: ClientFacts(name, i, []) for i, name in enumerate(story.clients)}
    for row, cell in enumerate(story.cells):
        facts = found[cell.client]
        facts.rows.append(row)
        facts.admitted += cell.state.admitted
        facts.converged += cell.state is State.CONVERGED
        facts.quarantined += cell.state is State.QUARANTINED
        facts.missing += cell.state is State.MISSING
        facts.slow += row in slow
        if cell.num_examples is not None:
            facts.num_examples = cell.num_examples
        if cell.state in (State.LEARNING, State.CONVERGED):
            facts.last_converged = cell.state is State.CONVERGED
    for facts in found.values():
        lies = spread([seconds[row] for row in facts.rows if row in seconds])
        facts.seconds = lies.median if lies else None
    return list(found.values())


def history_steps(story: RunStory, name: str) -> int:
    """Return at how many places a history of each round is drawn."""
    longest = max((len(h) for h in story.fields.histories[name].values()), default=1)
    rounds = max(1, len(story.rounds))
    return max(1, min(longest, _MOST_HISTORY_STEPS, _MOST_POINTS // rounds))


def thin(history: Sequence[float], steps: int) -> list[float]:
    """Return at most ``steps`` values, evenly spaced, with the last one among them.

    Examples
    --------
    >>> thin([9, 8, 7, 6, 5, 4], 3)
    [8, 6, 4]
    """
    count = len(history)
    if count <= steps:
        return list(history)
    return [history[(i + 1) * count // steps - 1] for i in range(steps)]


@dataclass(frozen=True)
class Columns:
    """Which clients and fields a page draws, and their cells.

    Attributes
    ----------
    drawn : Sequence[int]
        Ids of the clients that have a row in the map; the others can be asked for.
    complete : bool
        Whether the cells of all clients are there.
    data : dict[str, Any]
        The columns, as JSON.
    """

    drawn: Sequence[int]
    complete: bool
    data: dict[str, Any]


def columns(
    story: RunStory,
    clients: Sequence[ClientFacts],
    numbers: Sequence[str],
    booleans: Sequence[str],
    histories: Sequence[str],
) -> Columns:
    """Return the cells as columns, client after client.

    Parameters
    ----------
    story : RunStory
        The run.
    clients : Sequence[ClientFacts]
        All of its clients.
    numbers, booleans, histories : Sequence[str]
        Names of the fields that are drawn.
    """
    steps = {name: history_steps(story, name) for name in histories}
    width = 4 + len(numbers) + len(booleans) + sum(steps.values())
    kept = _within(sorted(clients, key=lambda c: c.worth), _MOST_VALUES // width)
    drawn = kept[:_MOST_ROWS_DRAWN]
    kept = sorted(kept, key=lambda c: c.id)
    rows = [row for client in kept for row in client.rows]
    seconds = training_seconds(story)
    data = {
        "ids": [client.id for client in kept],
        "names": _unique([printable(client.name, 60) for client in kept]),
        "sizes": [len(client.rows) for client in kept],
        "rounds": [story.cells[row].round for row in rows],
        "states": "".join(story.cells[row].state.code for row in rows),
        "seconds": rounded((seconds.get(row) for row in rows), 4),
        "examples": rounded((client.num_examples for client in kept), 6),
        "numbers": [_column(story.fields.numbers[name], rows) for name in numbers],
        "booleans": [_letters(story.fields.booleans[name], rows) for name in booleans],
        "histories": [
            [_thinned(story.fields.histories[name].get(row), steps[name]) for row in rows]
            for name in histories
        ],
    }
    return Columns(sorted(c.id for c in drawn), len(kept) == len(clients), data)


def _within(clients: Sequence[ClientFacts], most_cells: int) -> list[ClientFacts]:
    kept: list[ClientFacts] = []
    count = 0
    for client in clients:
        count += len(client.rows)
        if count > most_cells and kept:
            break
        kept.append(client)
    return kept


def _unique(names: Sequence[str]) -> list[str]:
    """Return names with a number behind those that are equal once they are cut for the page."""
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    again = {name: 0 for name, count in seen.items() if count > 1}
    unique = []
    for name in names:
        if name in again:
            again[name] += 1
            unique.append(f"{name} #{again[name]}")
        else:
            unique.append(name)
    return unique


def _column(values: dict[int, float], rows: Sequence[int]) -> list[float | None]:
    return rounded((values.get(row) for row in rows), 4)


def _letters(values: dict[int, bool], rows: Sequence[int]) -> str:
    return "".join("-" if row not in values else "01"[values[row]] for row in rows)


def _thinned(history: Sequence[float] | None, steps: int) -> list[float | None] | None:
    return None if history is None else rounded(thin(history, steps), 4)
