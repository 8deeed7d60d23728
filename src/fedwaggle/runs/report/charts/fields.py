"""Pictures of what clients say about themselves: each number, yes or no, and history."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass

import numpy as np

from fedwaggle.numbers import is_ordinary
from fedwaggle.runs.report.charts.cells import history_steps, thin
from fedwaggle.runs.report.charts.figure import SERIES, Figure, band, layout, line
from fedwaggle.runs.report.charts.keyed import keyed_names
from fedwaggle.runs.report.charts.spreads import by_round, named_points
from fedwaggle.runs.report.stats import far_above, groups, spread
from fedwaggle.runs.report.story import RunStory
from fedwaggle.runs.report.words import title_text

__all__ = ["DrawnFields", "drawn_fields", "field_figures", "history_figures"]


@dataclass(frozen=True)
class DrawnFields:
    """Names of the metadata fields that have a picture; ``left_out`` counts the others."""

    numbers: Sequence[str]
    booleans: Sequence[str]
    histories: Sequence[str]
    left_out: int


def drawn_fields(story: RunStory) -> DrawnFields:
    """Return the fields to draw: those that most updates have, 12 of a kind, 3 histories."""
    table = story.fields
    keyed = {name for names in keyed_names(table.numbers).values() for name in names}
    single = {name: rows for name, rows in table.numbers.items() if name not in keyed}
    numbers, left_a = _most_common(single, 12, first="training_time")
    booleans, left_b = _most_common(table.booleans, 12, first="converged")
    histories, left_c = _most_common(table.histories, 3, first="training_losses")
    return DrawnFields(numbers, booleans, histories, left_a + left_b + left_c)


def _most_common(columns: Mapping[str, Sized], most: int, *, first: str) -> tuple[list[str], int]:
    ranked = sorted(columns, key=lambda name: (name != first, -len(columns[name])))
    return ranked[:most], max(0, len(ranked) - most)


def field_figures(story: RunStory, fields: DrawnFields) -> list[Figure]:
    """Return a figure of each number and boolean that clients report and no other figure shows."""
    numbers = [
        _number(story, name, i) for i, name in enumerate(fields.numbers) if name != "training_time"
    ]
    booleans = [
        _boolean(story, name, i) for i, name in enumerate(fields.booleans) if name != "converged"
    ]
    return [figure for figure in [*numbers, *booleans] if figure.traces]


def history_figures(story: RunStory, fields: DrawnFields) -> list[Figure]:
    """Return a figure of each history that clients report, such as the losses of their epochs."""
    return [_history(story, name, f"history-{i}", i) for i, name in enumerate(fields.histories)]


def _history(story: RunStory, name: str, key: str, at: int) -> Figure:
    steps = history_steps(story, name)
    histories = story.fields.histories[name]
    x, spreads, high = [], [], []
    not_finite = sum(not all(map(is_ordinary, history)) for history in histories.values())
    rows = np.array(list(histories), dtype=np.int64)
    rounds = np.array([story.cells[row].round for row in rows], dtype=np.int64)
    for number, where in groups(rounds):
        thinned = [thin(histories[int(rows[i])], steps) for i in where]
        longest = max(map(len, thinned))
        for step in range(longest):
            lies = spread([values[step] for values in thinned if len(values) > step])
            if lies:
                x.append(round(number - 1 + (step + 1) / longest, 4))
                spreads.append(lies)
        last = [values[-1] for values in thinned]
        high += [int(rows[where[i]]) for i in far_above(last)]
    finals = {row: histories[row][-1] for row in high}
    traces = band(x, spreads, SERIES[3], ("median", "10 % to 90 % of clients"))
    traces[-1]["mode"] = "lines"
    traces += named_points(story, high, finals, "ends far above the rest", "")
    note = "Within a round, from left to right: what a client reports step by step."
    if not_finite:
        note += f" {not_finite} histories hold a value that no axis can show."
    return Figure(
        key,
        f"{title_text(name, 40)} of clients",
        note=note,
        traces=traces,
        layout=layout(),
        overlay=("histories", at),
        wide=True,
    )


def _number(story: RunStory, name: str, at: int) -> Figure:
    values = story.fields.numbers[name]
    rounds, spreads = by_round(story, values)
    title = title_text(name)
    if not rounds:
        return Figure(f"number-{at}", title)
    return Figure(
        f"number-{at}",
        title,
        note="Reported by clients.",
        traces=band(rounds, spreads, SERIES[2], ("median", "10 % to 90 % of clients")),
        layout=layout(y=_unit(name)),
        overlay=("numbers", at),
    )


def _boolean(story: RunStory, name: str, at: int) -> Figure:
    values = {row: float(value) for row, value in story.fields.booleans[name].items()}
    yes: Counter[int] = Counter()
    count: Counter[int] = Counter()
    for row, value in values.items():
        number = story.cells[row].round
        count[number] += 1
        yes[number] += value > 0
    rounds = sorted(count)
    shares = [100 * yes[number] / count[number] for number in rounds]
    trace = line(rounds, shares, "yes", SERIES[5])
    trace["hovertemplate"] = "round %{x}: %{y:.0f} % say yes<extra></extra>"
    return Figure(
        f"boolean-{at}",
        title_text(name),
        note="Reported by clients: the share for which it is true.",
        traces=[trace],
        layout=layout(y="%", legend=False, yaxis={"range": [-4, 104]}),
        overlay=("booleans", at),
    )


def _unit(name: str) -> str:
    """Return the unit that a field's name ends with, if it is one that we know."""
    unit = re.search(r"_(seconds|percent|bytes|watts|joules)$", name)
    return unit[1] if unit else ""
