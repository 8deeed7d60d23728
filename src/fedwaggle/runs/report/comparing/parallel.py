"""Parallel coordinates: what experiments were asked, and what came out, as a line for each."""

from __future__ import annotations

from collections.abc import Sequence

from fedwaggle.numbers import number_text, value_text
from fedwaggle.runs.report.charts.figure import Figure, layout
from fedwaggle.runs.report.comparing.groups import Group, differing_keys
from fedwaggle.runs.report.words import plotly_text

__all__ = ["parallel_figures"]

_FEWEST_EXPERIMENTS = 3
_MOST_KEYS = 6


def parallel_figures(groups: Sequence[Group]) -> list[Figure]:
    """Return a figure with an axis for each key that differs and one for the best value.

    Each axis goes from the least value at the bottom to the largest at the top; texts are in the
    order of the alphabet.
    """
    known = [group for group in groups if group.best is not None]
    keys = differing_keys(known)[:_MOST_KEYS]
    if len(known) < _FEWEST_EXPERIMENTS or not keys:
        return []
    metric = known[0].metric
    axes: dict[str, list[float | str | None]] = {
        key: [group.value_of(key) for group in known] for key in keys
    }
    axes[f"best {metric}"] = [group.best for group in known]
    names = [plotly_text(name, 24) for name in axes]
    heights = [_heights(values) for values in axes.values()]
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": names,
            "y": [each[at] for each in heights],
            "name": plotly_text(group.name, 60),
            "line": {"color": group.color, "width": 2},
            "marker": {"color": group.color, "size": 7},
            "text": [plotly_text(str(values[at]), 40) for values in axes.values()],
            "hovertemplate": "%{x}: %{text}",
        }
        for at, group in enumerate(known)
    ]
    ends = [
        _ends(values, metric if i == len(axes) - 1 else "")
        for i, values in enumerate(axes.values())
    ]
    annotations = [
        {
            "x": name,
            "y": y,
            "text": plotly_text(text, 20),
            "showarrow": False,
            "yshift": 14 if y else -14,
            "font": {"size": 11, "color": "@muted"},
        }
        for name, pair in zip(names, ends, strict=True)
        for y, text in enumerate(pair)
    ]
    return [
        Figure(
            "parallel",
            "What was asked, and what came of it",
            note="A line for each experiment; of several seeds, the mean of their best values.",
            traces=traces,
            layout=layout(
                x="",
                height=380,
                annotations=annotations,
                xaxis={"type": "category", "showgrid": True},
                yaxis={"visible": False, "range": [-0.15, 1.15]},
            ),
            kind="fixed",
            wide=True,
        )
    ]


def _heights(values: Sequence[object]) -> list[float]:
    """Return where values lie between the least, 0, and the largest, 1; texts by their rank.

    Examples
    --------
    >>> _heights([0.1, 0.2, 0.3])
    [0.0, 0.5, 1.0]
    >>> _heights(["iid", "dirichlet"])
    [1.0, 0.0]
    """
    ordered = _in_order(values)
    numbers = [v for v in values if isinstance(v, int | float)]
    if len(numbers) == len(values):
        low, high = min(numbers), max(numbers)
        return [round((v - low) / (high - low), 6) if high > low else 0.5 for v in numbers]
    last = max(1, len(ordered) - 1)
    return [ordered.index(str(value)) / last for value in values]


def _in_order(values: Sequence[object]) -> list[str]:
    return sorted({str(value) for value in values})


def _ends(values: Sequence[object], metric: str) -> tuple[str, str]:
    """Return the texts at the bottom and at the top of an axis."""
    numbers = [v for v in values if isinstance(v, int | float)]
    if len(numbers) == len(values):
        shown = [
            value_text(metric, v) if metric else number_text(v)
            for v in (min(numbers), max(numbers))
        ]
        return shown[0], shown[1]
    ordered = _in_order(values)
    return ordered[0], ordered[-1]
