"""Pictures of the global model: each metric by round, and the learning rate."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fedwaggle.numbers import as_float, number_text, value_text
from fedwaggle.runs.events import MetricValue, RoundFinished
from fedwaggle.runs.report.charts.figure import SERIES, Figure, Trace, layout, line, rounded
from fedwaggle.runs.report.story import RunStory
from fedwaggle.runs.report.words import plotly_text, title_text

__all__ = [
    "BestValue",
    "Family",
    "best_value",
    "families",
    "is_share",
    "model_figures",
    "rate_steps",
]

_SOURCES = {
    "metrics": "global model, on the server",
    "evaluate_metrics": "global model, at the clients",
    "train_metrics": "clients' training",
}
_ALIASES = {"acc": "accuracy"}
_MOST_FAMILIES = 14
_MOST_STEPS = 12  # more steps of the learning rate are drawn as a chart of their own


@dataclass(frozen=True)
class BestValue:
    """The best value of a run: the metric's name, its value and its round."""

    metric: str
    value: float
    round: int


@dataclass
class Family:
    """One metric, by whom it was measured.

    Attributes
    ----------
    name : str
        The metric, without a prefix such as ``train_``.
    curves : dict[tuple[str, str], dict[int, float]]
        (who measured, name as it was sent) to round to value.
    """

    name: str
    curves: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)

    @property
    def main(self) -> dict[int, float]:
        """Round to value of the source that counts most: the server, else the clients."""
        for source in _SOURCES:
            for (measured, _), values in self.curves.items():
                if measured == source:
                    return values
        return {}

    def is_of(self, best: BestValue) -> bool:
        """Return whether it is the metric of a best value."""
        return self.name == _plain(best.metric)


def families(rounds: Sequence[RoundFinished], first: str = "accuracy") -> list[Family]:
    """Return the run's metrics: ``first``, then the loss, then the others as they came.

    Lists (a metric of each class, say) have no curve and are left out.
    """
    found: dict[str, Family] = {}
    for source in _SOURCES:
        for end in rounds:
            metrics: dict[str, MetricValue] = getattr(end, source)
            for sent, value in metrics.items():
                if isinstance(value, list):
                    continue
                name = _plain(sent)
                family = found.setdefault(name, Family(name))
                family.curves.setdefault((source, sent), {})[end.round] = as_float(value)
    rank = {first: 0, "accuracy": 1, "loss": 2}
    return sorted(found.values(), key=lambda family: rank.get(family.name, 3))


def _plain(name: str) -> str:
    """Return a metric's name without what states who measured it."""
    plain = re.sub(r"^(train|eval|evaluate|test|val|server|global)[_-](?=.)", "", name)
    return _ALIASES.get(plain, plain)


def best_value(story: RunStory) -> BestValue | None:
    """Return the best value: of the best checkpoint, or else of the metric that comes first.

    Without a checkpoint, the least value is the best of a loss or an error, the largest one of
    anything else.
    """
    if best := story.best:
        return BestValue(best.metric, best.value, best.round)
    for family in families(story.finished_rounds):
        values = {r: value for r, value in family.main.items() if math.isfinite(value)}
        if values:
            falls = any(word in family.name.lower() for word in ("loss", "error", "perplexity"))
            at = (min if falls else max)(values, key=lambda r: values[r])
            return BestValue(family.name, values[at], at)
    return None


def rate_steps(story: RunStory) -> list[tuple[int, float]]:
    """Return the rounds at which the clients' learning rate changed, with the new rate."""
    steps: list[tuple[int, float]] = []
    last: float | None = None
    for number, rate in _rates(story).items():
        if last is not None and rate != last:
            steps.append((number, rate))
        last = rate
    return steps


def _rates(story: RunStory) -> dict[int, float]:
    rates = {}
    for number, entry in story.rounds.items():
        for part in (entry.started, entry.finished):
            if part and part.learning_rate is not None:
                rates[number] = part.learning_rate
    return rates


def model_figures(story: RunStory) -> list[Figure]:
    """Return a figure of each metric, and one of the learning rate if it has many steps."""
    best = best_value(story)
    found = families(story.finished_rounds, _plain(best.metric) if best else "accuracy")
    steps = rate_steps(story)
    marks = steps if len(steps) <= _MOST_STEPS else []
    figures = [
        _metric_figure(family, f"metric-{i}", best, marks)
        for i, family in enumerate(found[:_MOST_FAMILIES])
    ]
    if len(found) > len(figures):
        words = f"{len(found) - len(figures)} more metrics are in events.jsonl."
        figures[-1] = replace(figures[-1], note=f"{figures[-1].note} {words}".strip())
    if len(steps) > _MOST_STEPS:
        figures.insert(2, _rate_figure(story))
    return figures


def _metric_figure(
    family: Family, key: str, best: BestValue | None, steps: list[tuple[int, float]]
) -> Figure:
    traces: list[Trace] = []
    for color, ((source, sent), values) in zip(SERIES, family.curves.items(), strict=False):
        name = _SOURCES[source] + ("" if sent == family.name else f" ({plotly_text(sent, 30)})")
        trace = line(list(values), values.values(), name, color)
        traces.append({**trace, "hovertemplate": "round %{x}: %{y:.4f}<extra></extra>"})
    if best and _plain(best.metric) == family.name:
        traces.append(_best_mark(best))
    known = [value for value in family.main.values() if math.isfinite(value)]
    falls = bool(known) and known[-1] < known[0]
    percent = is_share(family.name, known)
    return Figure(
        key,
        f"{title_text(family.name, 40)} by round",
        note="Dotted: the clients' learning rate changes." if steps else "",
        traces=traces,
        layout=layout(
            shapes=[_step_line(at) for at, _ in steps],
            annotations=[_step_label(at, rate, at_top=falls) for at, rate in steps],
            yaxis={"tickformat": ".0%"} if percent else _count_axis(known),
        ),
    )


def is_share(metric: str, values: Sequence[float]) -> bool:
    """Return whether a metric's axis is in percent: an accuracy from 0 to 1."""
    return "acc" in metric.lower() and all(0 <= value <= 1 for value in values)


def _count_axis(values: Sequence[float]) -> dict[str, object]:
    """Return an axis of whole numbers from 0 where all values are such, and nothing elsewhere."""
    if not values or any(value < 0 or value != int(value) for value in values):
        return {}
    most = max(values)
    return {"rangemode": "tozero", **({"dtick": 1, "range": [0, most + 1]} if most <= 10 else {})}


def _best_mark(best: BestValue) -> Trace:
    words = f"best: {value_text(best.metric, best.value)}, round {best.round}"
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [best.round],
        "y": rounded([best.value]),
        "name": words,
        "marker": {
            "symbol": "star",
            "size": 15,
            "color": "@best",
            "line": {"width": 1, "color": "@card"},
        },
        "hovertemplate": f"{words}<extra></extra>",
    }


def _step_line(at: int) -> dict[str, object]:
    """Return a dotted line at a step of the learning rate."""
    return {
        "type": "line",
        "x0": at,
        "x1": at,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"color": "@muted", "width": 1, "dash": "dot"},
    }


def _step_label(at: int, rate: float, *, at_top: bool) -> dict[str, object]:
    """Return the new rate, beside the line and out of the curve's way."""
    return {
        "x": at,
        "y": 1 if at_top else 0,
        "yref": "paper",
        "yanchor": "top" if at_top else "bottom",
        "xanchor": "left",
        "textangle": -90,
        "text": f"lr {number_text(rate, digits=3)}",
        "showarrow": False,
        "font": {"size": 10, "color": "@muted"},
    }


def _rate_figure(story: RunStory) -> Figure:
    rates = _rates(story)
    trace = line(list(rates), rates.values(), "learning rate", SERIES[0])
    trace["line"] = {**trace["line"], "shape": "hv"}
    return Figure(
        "learning-rate",
        "Learning rate by round",
        note="The rate that clients were sent.",
        traces=[{**trace, "mode": "lines", "hovertemplate": "round %{x}: %{y}<extra></extra>"}],
        layout=layout(legend=False),
    )
