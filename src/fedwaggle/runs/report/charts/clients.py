"""Pictures of the clients: training time, convergence, participation, data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from fedwaggle.numbers import is_ordinary, number_text
from fedwaggle.runs.report.charts.cells import ClientFacts, slow_rows, training_seconds
from fedwaggle.runs.report.charts.fields import DrawnFields, history_figures
from fedwaggle.runs.report.charts.figure import SERIES, Figure, Trace, band, layout, rounded
from fedwaggle.runs.report.charts.spreads import by_round, named_points
from fedwaggle.runs.report.stats import Spread, spread
from fedwaggle.runs.report.story import RunStory, State
from fedwaggle.text import printable

__all__ = ["STATES", "client_figures"]

STATES = {
    State.CONVERGED: ("converged", "@converged"),
    State.LEARNING: ("learning", "@learning"),
    State.ADMITTED: ("update used", "@admitted"),
    State.QUARANTINED: ("quarantined", "@quarantined"),
    State.MISSING: ("missing", "@missing"),
    State.WAITING: ("no reply yet", "@waiting"),
}
"""Each state's word and colour, in the order in which bars are stacked."""

_MOST_BOXES = 40  # rounds; more are drawn as a band
_MANY_CLIENTS = 120


def client_figures(
    story: RunStory, clients: Sequence[ClientFacts], fields: DrawnFields
) -> list[Figure]:
    """Return the figures of time, cohort, convergence, losses and participation."""
    if not story.cells:
        return []
    figures = [*_time(story, fields), _cohort(story), _map(story, clients)]
    figures += history_figures(story, fields)
    figures += [*_norms(story), *_cosines(story)]
    many = len(clients) > _MANY_CLIENTS
    return [*figures, *(_histograms(clients) if many else _participation())]


def _time(story: RunStory, fields: DrawnFields) -> list[Figure]:
    seconds = training_seconds(story)
    rounds, spreads = by_round(story, seconds)
    if not rounds:
        return []
    said = "training_time" in fields.numbers
    slow = slow_rows(story, seconds)
    if len(rounds) <= _MOST_BOXES:
        # A whisker ends at the slowest of the others: who is slower has a point of its own.
        others = {row: value for row, value in seconds.items() if row not in slow}
        traces = [_boxes(rounds, spreads, by_round(story, others)[1])]
    else:
        traces = band(rounds, spreads, SERIES[0], ("median", "10 % to 90 % of clients"))
    traces += named_points(story, slow, seconds, "far slower than the rest", "s")
    source = "What clients report" if said else "From sending to the reply, on the server's clock"
    return [
        Figure(
            "training-time",
            "Training time of clients",
            note=f"{source}. {_stragglers(story, slow)}",
            traces=traces,
            layout=layout(y="s", yaxis={"rangemode": "tozero"}),
            overlay=("seconds", 0),
        )
    ]


def _norms(story: RunStory) -> list[Figure]:
    """Return how far clients moved the model, if that was measured."""
    rounds, spreads = by_round(story, story.norms)
    if not rounds:
        return []
    return [
        Figure(
            "norms",
            "Length of clients' updates",
            note="L2 norm of each change to the trained arrays. Clients that drift apart move far.",
            traces=band(rounds, spreads, SERIES[5], ("median", "10 % to 90 % of clients")),
            layout=layout(yaxis={"rangemode": "tozero"}),
        )
    ]


def _cosines(story: RunStory) -> list[Figure]:
    """Return how far clients pull apart, if that was measured."""
    found = {
        end.round: spread([c for c in end.cosines.values() if is_ordinary(c)])
        for end in story.finished_rounds
    }
    known = {number: lies for number, lies in found.items() if lies}
    if not known:
        return []
    return [
        Figure(
            "cosines",
            "Direction of clients' updates",
            note="Cosine of each change to the mean of all: 1 is the same direction. Clients whose "
            "data differ pull apart.",
            traces=band(
                list(known), list(known.values()), SERIES[2], ("median", "10 % to 90 % of clients")
            ),
            layout=layout(),
        )
    ]


def _stragglers(story: RunStory, slow: Sequence[int]) -> str:
    if not slow:
        return "No client was far slower than the rest of its round."
    often = Counter(story.cells[row].client for row in slow).most_common(4)
    named = ", ".join(f"client {printable(name, 40)} ({count})" for name, count in often)
    return f"Stragglers, with the number of rounds: {named}."


def _boxes(rounds: Sequence[int], spreads: Sequence[Spread], others: Sequence[Spread]) -> Trace:
    return {
        "type": "box",
        "x": list(rounds),
        "q1": rounded(s.q1 for s in spreads),
        "median": rounded(s.median for s in spreads),
        "q3": rounded(s.q3 for s in spreads),
        "lowerfence": rounded(s.low for s in spreads),
        "upperfence": rounded(s.high for s in others),
        "name": "clients of the round",
        "line": {"color": SERIES[0], "width": 1.5},
        "fillcolor": f"{SERIES[0]}-soft",
    }


def _cohort(story: RunStory) -> Figure:
    counts: dict[State, Counter[int]] = {state: Counter() for state in STATES}
    for cell in story.cells:
        counts[cell.state][cell.round] += 1
    rounds = sorted({cell.round for cell in story.cells})
    traces = [
        {
            "type": "bar",
            "x": rounds,
            "y": [counts[state][number] for number in rounds],
            "name": word,
            "marker": {"color": color, "line": {"width": 0}},
            "hovertemplate": "%{y}",
        }
        for state, (word, color) in STATES.items()
        if counts[state]
    ]
    return Figure(
        "cohort",
        "What became of each round's cohort",
        note="Clients that were sampled, by what came back.",
        traces=traces,
        layout=layout(y="clients", barmode="stack", hovermode="x unified"),
    )


def _map(story: RunStory, clients: Sequence[ClientFacts]) -> Figure:
    some = f" The {_MANY_CLIENTS} of {len(clients):,} clients that are worth a look first: with "
    some += "refused or missing replies, then slow ones. Filter by client to see another one."
    return Figure(
        "map",
        "Convergence events, client by round" if story.knows_convergence else "Client by round",
        note="Each row is a client, each column a round."
        + (some if len(clients) > _MANY_CLIENTS else ""),
        kind="map",
        layout=layout(
            legend=False,
            yaxis={"showgrid": False, "autorange": "reversed"},
        ),
        wide=True,
    )


def _participation() -> list[Figure]:
    return [
        Figure(
            "participation",
            "Participation of each client",
            note="How often it was sampled, by what came back.",
            kind="clients",
            layout=layout(x="client", y="rounds", barmode="stack"),
        ),
        Figure(
            "examples",
            "Share of the data",
            note="Examples behind a client's last update, in percent of all clients together.",
            kind="clients",
            layout=layout(x="client", y="%", legend=False),
        ),
    ]


def _histograms(clients: Sequence[ClientFacts]) -> list[Figure]:
    sampled = [len(client.rows) for client in clients]
    examples = [client.num_examples for client in clients if client.num_examples is not None]
    figures = [
        _histogram("participation", "How often clients were sampled", "rounds", sampled),
        _histogram("examples", "How much data clients have", "examples", examples),
    ]
    return [figure for figure in figures if figure.traces]


def _histogram(key: str, title: str, x: str, values: Iterable[float]) -> Figure:
    known = np.array([value for value in values if is_ordinary(value)], dtype=np.float64)
    if not known.size:
        return Figure(key, title)
    counts, edges = np.histogram(known, bins=min(40, max(1, int(np.ptp(known)))))
    middles = (edges[:-1] + edges[1:]) / 2
    half = (edges[1] - edges[0]) / 2
    spans = [f"{number_text(m - half)} to {number_text(m + half)}" for m in middles]
    trace = {
        "type": "bar",
        "x": rounded(middles.tolist()),
        "y": counts.tolist(),
        "text": spans,
        "textposition": "none",
        "marker": {"color": SERIES[0], "line": {"width": 0}},
        "hovertemplate": f"%{{text}} {x}: %{{y}} clients<extra></extra>",
    }
    shape = layout(x=x, y="clients", legend=False, bargap=0.05)
    return Figure(key, title, traces=[trace], layout=shape, kind="fixed")
