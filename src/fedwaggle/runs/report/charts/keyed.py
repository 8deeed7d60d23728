"""Pictures of values by name: an object that clients report, their data, their evaluations."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from fedwaggle.numbers import is_ordinary
from fedwaggle.runs.report.charts.figure import SERIES, Figure, Trace, band, layout, rounded
from fedwaggle.runs.report.stats import spread
from fedwaggle.runs.report.story import RunStory
from fedwaggle.runs.report.words import natural_key, plotly_text, title_text

__all__ = ["evaluation_figures", "keyed_figures", "keyed_names", "partition_figures"]

_FEWEST_KEYS = 3  # an object with fewer has a picture of each
_MOST_KEYS = 40
_MOST_CLIENTS = 120
_MOST_OBJECTS = 6
_MOST_CHOICES = 30  # clients in a menu
_MOST_CHOSEN_NUMBERS = 20_000  # about 150 kB of the page

Rows: TypeAlias = list[list[float | None]]


def keyed_names(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the objects among dotted names that have many keys, each with its fields.

    Examples
    --------
    >>> keyed_names(["recall.cat", "recall.dog", "recall.owl", "gpu.heat", "loss"])
    {'recall': ['recall.cat', 'recall.dog', 'recall.owl']}
    """
    objects: dict[str, list[str]] = {}
    for name in names:
        owner, dot, _ = name.rpartition(".")
        if dot:
            objects.setdefault(owner, []).append(name)
    return {owner: found for owner, found in objects.items() if len(found) >= _FEWEST_KEYS}


def keyed_figures(story: RunStory) -> list[Figure]:
    """Return a map of each object that clients report: keys by rounds, medians over clients."""
    objects = list(keyed_names(story.fields.numbers).items())[:_MOST_OBJECTS]
    return [_map_of(story, owner, names, i) for i, (owner, names) in enumerate(objects)]


def _map_of(story: RunStory, owner: str, names: Sequence[str], at: int) -> Figure:
    names = sorted(names, key=natural_key)[:_MOST_KEYS]
    rounds = sorted(
        {story.cells[row].round for name in names for row in story.fields.numbers[name]}
    )
    z = _rows(story, names, rounds)
    keys = [plotly_text(name.removeprefix(f"{owner}."), 24) for name in names]
    return Figure(
        f"keyed-{at}",
        title_text(owner, 40),
        note="Reported by clients: the median over the clients of a round, or the client chosen.",
        traces=[_heat(rounds, keys, z, "%{y}, round %{x}: %{z}")],
        layout=_map_layout("round", len(keys)) | _choice_of_client(story, names, rounds, z),
        kind="fixed",
        wide=True,
    )


def _choice_of_client(
    story: RunStory, names: Sequence[str], rounds: Sequence[int], medians: Rows
) -> dict[str, Any]:
    """Return a menu of the clients; none where there are too many, or only one."""
    clients = sorted(
        {story.cells[row].client for name in names for row in story.fields.numbers[name]},
        key=natural_key,
    )
    numbers = len(clients) * len(names) * len(rounds)
    if not 1 < len(clients) <= _MOST_CHOICES or numbers > _MOST_CHOSEN_NUMBERS:
        return {}
    choices = {"all clients, median": medians}
    choices |= {f"client {name}": _rows(story, names, rounds, name) for name in clients}
    return {
        "margin": {"l": 8, "r": 12, "t": 66, "b": 8},  # the menu below the toolbar
        "updatemenus": [
            {
                "type": "dropdown",
                "x": 0,
                "xanchor": "left",
                "y": 1,
                "yanchor": "bottom",
                "pad": {"b": 4, "t": 0, "l": 0, "r": 0},
                "bgcolor": "@card",
                "bordercolor": "@line",
                "font": {"size": 11, "color": "@ink"},
                "buttons": [
                    {"label": plotly_text(label, 30), "method": "restyle", "args": [{"z": [z]}]}
                    for label, z in choices.items()
                ],
            }
        ],
    }


def _rows(
    story: RunStory, names: Sequence[str], rounds: Sequence[int], client: str | None = None
) -> Rows:
    """Return the medians of each field by round: over all clients, or one client's own."""
    medians = [_medians(story, story.fields.numbers[name], client) for name in names]
    return [rounded(known.get(number) for number in rounds) for known in medians]


def _medians(story: RunStory, values: Mapping[int, float], client: str | None) -> dict[int, float]:
    by_round: dict[int, list[float]] = {}
    for row, value in values.items():
        if is_ordinary(value) and client in (None, story.cells[row].client):
            by_round.setdefault(story.cells[row].round, []).append(value)
    return {number: statistics.median(found) for number, found in by_round.items()}


def partition_figures(story: RunStory) -> list[Figure]:
    """Return a map of the clients' training data: how many examples of each class each has."""
    clients = sorted(story.label_counts, key=natural_key)[:_MOST_CLIENTS]
    labels = {label for client in clients for label in story.label_counts[client]}
    if len(labels) < 2:  # a regression, or one class
        return []
    shown = sorted(labels, key=natural_key)[:_MOST_KEYS]
    z: list[list[float | None]] = [
        [float(story.label_counts[client].get(label, 0)) for client in clients] for label in shown
    ]
    names = [plotly_text(client, 18) for client in clients]
    keys = [plotly_text(label, 24) for label in shown]
    return [
        Figure(
            "partition",
            "Examples of each class at each client",
            note="What clients train on, counted before the first round.",
            traces=[_heat(names, keys, z, "client %{x}, class %{y}: %{z}")],
            layout=_map_layout("client", len(keys)),
            kind="fixed",
            wide=len(clients) > 20,
        )
    ]


def evaluation_figures(story: RunStory) -> list[Figure]:
    """Return how the model's value for the clients is spread, and what it is for each of them."""
    metric = _main_metric(story)
    rounds = story.evaluations.get(metric, {})
    found = {n: spread(list(values.values())) for n, values in sorted(rounds.items())}
    known = {number: lies for number, lies in found.items() if lies}
    if not known:
        return []
    numbers = list(known)
    title = title_text(metric, 40)
    last = rounds[numbers[-1]]
    clients = sorted(last, key=natural_key)[:_MOST_CLIENTS]
    bars: Trace = {
        "type": "bar",
        "x": [plotly_text(client, 18) for client in clients],
        "y": rounded(last[client] for client in clients),
        "marker": {"color": SERIES[0], "line": {"width": 0}},
        "hovertemplate": "client %{x}: %{y}<extra></extra>",
    }
    return [
        Figure(
            "fairness",
            f"{title} of the global model at the clients",
            note="Each client evaluates on its own data. A wide band: the model serves some better "
            "than others.",
            traces=band(numbers, list(known.values()), SERIES[4], ("median", "10 % to 90 %")),
            layout=layout(),
        ),
        Figure(
            "fairness-clients",
            f"{title} by client, round {numbers[-1]}",
            note="The last round in which clients evaluated.",
            traces=[bars],
            layout=layout(x="client", legend=False, xaxis={"type": "category"}),
            kind="fixed",
        ),
    ]


def _main_metric(story: RunStory) -> str:
    """Return the metric that picks the best model, or else the first that clients evaluate."""
    names = list(story.evaluations)
    best = story.best.metric if story.best else ""
    near = [name for name in names if name == best or name.endswith(f"_{best}")]
    return (near or names or [""])[0]


def _heat(
    x: Sequence[object], y: Sequence[str], z: Sequence[Sequence[float | None]], hover: str
) -> Trace:
    return {
        "type": "heatmap",
        "x": list(x),
        "y": list(y),
        "z": [list(row) for row in z],
        "colorscale": [[0, "@empty"], [1, "@blue"]],
        "colorbar": {"thickness": 10, "outlinewidth": 0, "tickfont": {"color": "@muted"}},
        "xgap": 1,
        "ygap": 1,
        "hoverongaps": False,
        "hovertemplate": f"{hover}<extra></extra>",
    }


def _map_layout(x: str, keys: int) -> dict[str, object]:
    return layout(
        x=x,
        height=min(1100, max(180, 90 + 22 * keys)),
        legend=False,
        xaxis={"type": "category"} if x == "client" else None,
        yaxis={"type": "category", "autorange": "reversed"},
    )
