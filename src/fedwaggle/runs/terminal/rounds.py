"""A run as a table for a terminal that grows by a line a round: a pure function of its events.

What clients said passes :func:`fedwaggle.text.printable` and is set as plain text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.text import Text

from fedwaggle.numbers import number_text, value_text
from fedwaggle.runs.events import (
    CheckpointSaved,
    ClientUpdated,
    DecisionTaken,
    Event,
    RoundFinished,
    RoundStarted,
    RunResumed,
    RunStarted,
)
from fedwaggle.text import printable

__all__ = ["RoundTable"]

_MOST_COLUMNS = 80
_LONGEST_NAME = 10  # characters of a metric's name, so that a row is no longer
_MOST_IN_HEADING = 60  # characters of a value of the run config


class RoundTable:
    """Makes lines of events: what runs, a heading, and a row for each round.

    Parameters
    ----------
    about : Iterable[str] (default: none)
        What is known of the run that is not in its events, such as ``"2 workers"``.
    """

    def __init__(self, about: Iterable[str] = ()) -> None:
        self._about = list(about)
        self._num_rounds = 0
        self._metric = ""  # the one that picks the best model
        self._loss = ""
        self._widths: dict[str, int] = {}  # of the columns, once there is a heading
        self._gap = "  "
        self._sampled: int | None = None
        self._is_best = False
        self._converged: int | None = None  # None as long as no client reports it

    def add(self, event: Event) -> Iterator[Text]:
        """Take the next event, and yield the lines that it adds."""
        match event:
            case RunStarted():
                self._num_rounds = event.num_rounds
                yield from self._heading_of_run(event)
            case RunResumed():
                self._num_rounds = event.num_rounds
                yield from self._heading_of_resume(event)
            case RoundStarted():
                self._sampled = event.sampled
            case ClientUpdated():
                self._count_convergence(event)
            case CheckpointSaved():
                self._metric, self._is_best = event.metric, True
            case DecisionTaken():
                yield Text(f"  {event.policy}: {printable(f'{event.action}, {event.reason}', 300)}")
            case RoundFinished():
                yield from self._row(event)
                self._begin_round()

    def _begin_round(self) -> None:
        self._sampled = None
        self._is_best = False
        self._converged = None

    def _count_convergence(self, event: ClientUpdated) -> None:
        has_converged = (event.metadata or {}).get("converged")
        if isinstance(has_converged, bool):
            self._converged = (self._converged or 0) + has_converged

    # -- what runs

    def _heading_of_run(self, event: RunStarted) -> Iterator[Text]:
        size = f", {event.num_parameters:,} parameters" if event.num_parameters else ""
        yield Text(f"{printable(event.strategy, 60)}{size}", style="bold")
        config = event.config
        data = [str(config[key]) for key in ("dataset", "partitioner") if config.get(key)]
        parts = [
            ", ".join(printable(each, _MOST_IN_HEADING) for each in data),
            f"{event.nodes:,} nodes" if event.nodes else "",
            *self._about,
            f"seed {event.seed}",
        ]
        yield Text(" · ".join(filter(None, parts)))

    def _heading_of_resume(self, event: RunResumed) -> Iterator[Text]:
        after = f"after round {event.round}" if event.round >= 0 else "from its beginning"
        yield Text(f"resumed {after}", style="bold")
        for key, (before, now) in event.changes.items():
            yield Text(f"  {key}: {printable(f'{before!r} before, {now!r} now', 200)}")

    # -- the rounds

    def _row(self, event: RoundFinished) -> Iterator[Text]:
        found = {**event.train_metrics, **event.evaluate_metrics, **event.metrics}
        shown = event.metrics or event.evaluate_metrics
        if not self._widths:
            if not shown and event.round == 0:
                return  # clients test the model, and none has yet
            self._metric = self._metric or next(iter(shown), "")
            self._loss = _first_loss(shown, self._metric) or _first_loss(found, self._metric)
            self._widths = self._columns()
            yield Text("")
            yield self._line({name: name for name in self._widths}, "bold")
        star = "*" if self._is_best else " "
        cells = {
            "round": f"{event.round}/{self._num_rounds}{star}",
            printable(self._metric, _LONGEST_NAME): _value(self._metric, found),
            printable(self._loss, _LONGEST_NAME): _value(self._loss, found),
            "lr": "" if event.learning_rate is None else f"{event.learning_rate:.3g}",
            "clients": "" if self._sampled is None else f"{event.updates}/{self._sampled}",
            "converged": "" if self._converged is None else str(self._converged),
            "quarantined": "" if self._sampled is None else str(event.quarantined),
            "seconds": number_text(event.seconds, digits=3),
        }
        style = "red" if event.skipped else "yellow" if event.quarantined else ""
        yield self._line(cells, style)

    def _columns(self) -> dict[str, int]:
        """Return the width of each column, by its name."""
        names = {
            "round": 2 * len(str(self._num_rounds)) + 2,
            printable(self._metric, _LONGEST_NAME): 8,
            printable(self._loss, _LONGEST_NAME): 7,
            "lr": 8,
            "clients": 5,
            "converged": 0,
            "quarantined": 0,
            "seconds": 0,
        }
        widths = {name: max(width, len(name)) for name, width in names.items() if name}
        is_wide = sum(widths.values()) + 2 * (len(widths) - 1) > _MOST_COLUMNS
        self._gap = " " if is_wide else "  "
        return widths

    def _line(self, cells: Mapping[str, str], style: str) -> Text:
        parts = [cells[name].rjust(width) for name, width in self._widths.items()]
        return Text(self._gap.join(parts), style=style, no_wrap=True, overflow="ignore")


def _first_loss(metrics: Mapping[str, Any], other_than: str) -> str:
    return next((name for name in metrics if "loss" in name and name != other_than), "")


def _value(metric: str, metrics: Mapping[str, Any]) -> str:
    value = metrics.get(metric)
    return value_text(metric, value) if isinstance(value, int | float) else ""
