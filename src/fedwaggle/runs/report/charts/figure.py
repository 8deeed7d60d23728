"""A picture as a value: Plotly's traces and layout as plain JSON.

Colours are names such as ``@ink``: the page has a palette for light and one for dark, and its
script puts the colours in. So the same figure serves both, and print.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fedwaggle.numbers import is_ordinary
from fedwaggle.runs.report.stats import Spread

__all__ = ["SERIES", "Figure", "band", "layout", "line", "rounded"]

SERIES = ("@blue", "@orange", "@green", "@purple", "@red", "@cyan", "@brown", "@grey")
"""Colours of series, in the order in which they are given out."""

Trace = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A picture and the words around it.

    Attributes
    ----------
    key : str
        Name of its element on the page: letters, digits and hyphens.
    title, note : str
        The heading, and how to read the picture. Plain text, escaped by the page.
    traces : Sequence[dict[str, Any]]
        Plotly's traces, without types that need WebGL.
    layout : dict[str, Any]
        Plotly's layout.
    kind : str
        How the page filters it. ``rounds``: by its x values. ``map`` and ``clients``: the page's
        script draws it from the cells. ``fixed``: not at all.
    overlay : tuple[str, int] | None
        Which column of the cells a chosen client's own line is drawn from.
    wide : bool
        Whether it takes the whole width of the page.
    """

    key: str
    title: str
    note: str = ""
    traces: Sequence[Trace] = ()
    layout: dict[str, Any] = field(default_factory=dict)
    kind: Literal["rounds", "map", "clients", "fixed"] = "rounds"
    overlay: tuple[str, int] | None = None
    wide: bool = False

    def payload(self) -> dict[str, Any]:
        """Return what the page's script needs to draw it."""
        return {
            "key": self.key,
            "kind": self.kind,
            "overlay": self.overlay,
            "data": list(self.traces),
            "layout": self.layout,
        }


def layout(
    *,
    x: str = "round",
    y: str = "",
    height: int = 320,
    legend: bool = True,
    xaxis: dict[str, Any] | None = None,
    yaxis: dict[str, Any] | None = None,
    **more: object,
) -> dict[str, Any]:
    """Return the layout that all figures share.

    Parameters
    ----------
    x, y : str
        Titles of the axes; ours, never a client's words.
    height : int
        In CSS pixels.
    legend : bool
        Whether there is one.
    xaxis, yaxis : dict[str, Any] | None
        What is added to the axes that are made here.
    **more : object
        Further keys of Plotly's layout.
    """
    axis: dict[str, Any] = {
        "gridcolor": "@line",
        "linecolor": "@line",
        "zeroline": False,
        "automargin": True,
        "tickfont": {"size": 11, "color": "@muted"},
    }
    title = {"standoff": 8, "font": {"size": 12, "color": "@muted"}}
    x_axis = {**axis, "title": {**title, "text": x}, "showgrid": False}
    y_axis = {**axis, "title": {**title, "text": y}}
    return {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 34, "b": 8},  # at the top is room for the toolbar
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "@muted", "activecolor": "@ink"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "@ink"},
        "hoverlabel": {
            "bgcolor": "@card",
            "bordercolor": "@line",
            "font": {"color": "@ink", "size": 12},
            "align": "left",
        },
        "showlegend": legend,
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": -0.2,  # below, where the toolbar cannot cover it
            "yanchor": "top",
            "font": {"size": 11, "color": "@ink"},
        },
        "hovermode": "closest",
        "bargap": 0.15,
        **more,
        "xaxis": {**x_axis, **(xaxis or {})},
        "yaxis": {**y_axis, **(yaxis or {})},
    }


def rounded(values: Iterable[float | None], digits: int = 5) -> list[float | None]:
    """Return numbers at a few significant digits, to keep the page small.

    What is not ordinary is None, a gap: axes that hold it show nothing of the rest.

    Examples
    --------
    >>> rounded([0.123456789, None, float("inf"), 1e308])
    [0.12346, None, None, None]
    """
    return [
        None if value is None or not is_ordinary(value) else float(f"{value:.{digits}g}")
        for value in values
    ]


def line(x: Sequence[float], y: Iterable[float | None], name: str, color: str) -> Trace:
    """Return a line with a dot at each value. A few values show their dots."""
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(x) <= 40 else "lines",
        "x": list(x),
        "y": rounded(y),
        "name": name,
        "line": {"color": color, "width": 2},
        "marker": {"color": color, "size": 5},
    }


def band(
    x: Sequence[float], spreads: Sequence[Spread], color: str, names: tuple[str, str]
) -> list[Trace]:
    """Return a band from the first tenth to the last, with a line at the median.

    Parameters
    ----------
    x : Sequence[float]
        One for each of ``spreads``.
    color : str
        A name of the palette; the band has the same name with ``-soft`` behind it.
    names : tuple[str, str]
        Of the line and of the band, for the legend.
    """
    edge = {"type": "scatter", "mode": "lines", "x": list(x), "line": {"width": 0}}
    low = {**edge, "y": rounded(s.p10 for s in spreads), "showlegend": False, "hoverinfo": "skip"}
    high = {
        **edge,
        "y": rounded(s.p90 for s in spreads),
        "name": names[1],
        "fill": "tonexty",
        "fillcolor": f"{color}-soft",
        "hoverinfo": "skip",
    }
    return [low, high, line(x, (s.median for s in spreads), names[0], color)]
