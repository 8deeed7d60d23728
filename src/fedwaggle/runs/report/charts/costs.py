"""Pictures of what a run costs: seconds of each phase, and bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedwaggle.runs.report.charts.figure import SERIES, Figure, Trace, layout, line, rounded
from fedwaggle.runs.report.charts.models import BestValue, best_value, families
from fedwaggle.runs.report.story import RunStory
from fedwaggle.runs.report.words import bytes_text, plotly_text, title_text

__all__ = ["cost_figures"]

_MOST_PHASES = 8
_TARGET = 0.95  # of the way from the first value to the best one


def cost_figures(story: RunStory) -> list[Figure]:
    """Return the figures of time, of traffic, and of what the model costs in both."""
    return [*_phases(story), *_traffic(story), *_value_for_cost(story)]


def _value_for_cost(story: RunStory) -> list[Figure]:
    """Return the best metric against the bytes and the seconds that it took to get there."""
    best = best_value(story)
    curve = next((f.main for f in families(story.finished_rounds) if best and f.is_of(best)), {})
    if best is None or len(curve) < 2:
        return []
    spent = _spent(story)
    rounds = [number for number in sorted(curve) if number in spent]
    values = [curve[number] for number in rounds]
    figures = []
    for key, unit, at in (("bytes", "MB", 0), ("seconds", "s", 1)):
        costs = [spent[number][at] for number in rounds]
        trace = line(costs, values, plotly_text(best.metric, 30), SERIES[0])
        trace["text"] = [f"round {number}" for number in rounds]
        trace["hovertemplate"] = "%{text}: %{y:.4f} after %{x:.4g} " + unit + "<extra></extra>"
        figures.append(
            Figure(
                f"value-for-{key}",
                f"{title_text(best.metric, 30)} against {key}",
                note=_target(best, rounds, values, spent),
                traces=[trace],
                layout=layout(x=unit, legend=False),
                kind="fixed",
            )
        )
    return figures


def _spent(story: RunStory) -> dict[int, tuple[float, float]]:
    """Return the megabytes and the seconds from the start to the end of each round."""
    spent: dict[int, tuple[float, float]] = {}
    megabytes = seconds = 0.0
    for number, entry in sorted(story.rounds.items()):
        if entry.finished:
            down = entry.started.bytes_down if entry.started else 0
            megabytes += (down + entry.finished.bytes_up) / 1e6
            seconds += entry.finished.seconds
            spent[number] = (megabytes, seconds)
    return spent


def _target(
    best: BestValue,
    rounds: Sequence[int],
    values: Sequence[float],
    spent: Mapping[int, tuple[float, float]],
) -> str:
    """Return when the curve had come 95 % of the way from its start to its best value."""
    target = values[0] + _TARGET * (best.value - values[0])
    rises = best.value >= values[0]
    for number, value in zip(rounds, values, strict=True):
        if value >= target if rises else value <= target:
            megabytes, seconds = spent[number]
            return (
                f"95 % of the way to the best value: round {number}, after {megabytes:.3g} MB and "
                f"{seconds:.3g} s."
            )
    return ""


def _phases(story: RunStory) -> list[Figure]:
    ends = story.finished_rounds
    # Round 0 has few phases, so their order is that of a full round.
    ordered = sorted(ends, key=lambda end: -len(end.phases))
    names = list(dict.fromkeys(name for end in ordered for name in end.phases))[:_MOST_PHASES]
    if not names:
        return []
    traces = [
        _bar(
            [end.round for end in ends],
            [end.phases.get(name) for end in ends],
            plotly_text(name, 30),
            color,
        )
        for name, color in zip(names, SERIES, strict=False)
    ]
    return [
        Figure(
            "phases",
            "Seconds of each phase of a round",
            note="On the server's clock, one on top of the other.",
            traces=traces,
            layout=layout(y="s", barmode="stack", hovermode="x unified"),
        )
    ]


def _traffic(story: RunStory) -> list[Figure]:
    rounds = [n for n, entry in story.rounds.items() if entry.started]
    if not rounds:
        return []
    started = [story.rounds[n].started for n in rounds]
    finished = [story.rounds[n].finished for n in rounds]
    down = [float(begun.bytes_down) if begun else None for begun in started]
    up = [float(end.bytes_up) if end else None for end in finished]
    if not any(down) and not any(up):
        return []
    traces = [
        {
            **line(rounds, values, name, color),
            "text": ["" if value is None else bytes_text(value) for value in values],
            "hovertemplate": "%{text}",
        }
        for values, name, color in (
            (down, "down: to the clients", SERIES[0]),
            (up, "up: from the clients", SERIES[1]),
        )
    ]
    return [
        Figure(
            "traffic",
            "Bytes of each round",
            note="Size of the messages, as the server counts them.",
            traces=traces,
            layout=layout(
                y="bytes",
                hovermode="x unified",
                yaxis={"tickformat": "~s", "rangemode": "tozero"},
            ),
        )
    ]


def _bar(x: list[int], y: list[float | None], name: str, color: str) -> Trace:
    return {
        "type": "bar",
        "x": x,
        "y": rounded(y, 7),
        "name": name,
        "marker": {"color": color, "line": {"width": 0}},
        "hovertemplate": "%{y:.3g} s",
    }
