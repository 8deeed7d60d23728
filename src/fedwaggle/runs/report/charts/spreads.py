"""Values of clients by round: how they lie, and the single clients that stand out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedwaggle.runs.report.charts.figure import SERIES, Trace, rounded
from fedwaggle.runs.report.stats import Spread, groups, spread
from fedwaggle.runs.report.story import RunStory
from fedwaggle.runs.report.words import plotly_text

__all__ = ["by_round", "named_points"]

_MOST_NAMED = 12  # points with a name beside them; more have it on hover
_MOST_POINTS = 1_500


def by_round(story: RunStory, values: dict[int, float]) -> tuple[list[int], list[Spread]]:
    """Return the rounds that have finite values, and how these lie."""
    rows = list(values)
    rounds = np.array([story.cells[row].round for row in rows], dtype=np.int64)
    numbers = np.array([values[row] for row in rows], dtype=np.float64)
    found = [(number, spread(numbers[where])) for number, where in groups(rounds)]
    known = [(number, lies) for number, lies in found if lies]
    return [number for number, _ in known], [lies for _, lies in known]


def named_points(
    story: RunStory, rows: Sequence[int], values: dict[int, float], name: str, unit: str
) -> list[Trace]:
    """Return a trace of single clients with their names, or none."""
    if not rows:
        return []
    rows = sorted(rows, key=lambda row: -values[row])[:_MOST_POINTS]
    names = [plotly_text(story.cells[row].client, 30) for row in rows]
    return [
        {
            "type": "scatter",
            "mode": "markers+text" if len(rows) <= _MOST_NAMED else "markers",
            "x": [story.cells[row].round for row in rows],
            "y": rounded(values[row] for row in rows),
            "text": names,
            "textposition": "top center",
            "textfont": {"size": 10, "color": "@muted"},
            "name": name,
            "marker": {"color": SERIES[1], "size": 6},
            "cliponaxis": False,
            "hovertemplate": f"%{{text}}: %{{y}} {unit}, round %{{x}}<extra></extra>",
        }
    ]
