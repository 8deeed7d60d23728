"""Pictures of what a run costs: seconds of each phase, and bytes."""

from __future__ import annotations

from fedwaggle.runs.report.charts.figure import SERIES, Figure, Trace, layout, line, rounded
from fedwaggle.runs.report.story import RunStory
from fedwaggle.runs.report.words import bytes_text, plotly_text

__all__ = ["cost_figures"]

_MOST_PHASES = 8


def cost_figures(story: RunStory) -> list[Figure]:
    """Return the figures of time and of traffic, if any round has ended."""
    return [*_phases(story), *_traffic(story)]


def _phases(story: RunStory) -> list[Figure]:
    ends = story.finished_rounds
    # Round 0 has few phases, so a full round says in which order they come.
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
