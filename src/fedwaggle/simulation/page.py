"""A result as a notebook shows it: the curve of the model, and a table of the rounds.

The page is plain HTML with a picture in SVG, without scripts, so that every front end shows it,
also where a notebook is only rendered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from fedwaggle.numbers import is_ordinary, value_text
from fedwaggle.runs import RunRecord
from fedwaggle.runs.paths import REPORT
from fedwaggle.text import printable

__all__ = ["result_page"]

_WIDTH, _HEIGHT, _EDGE = 480, 160, 8  # of the picture, in its units
_MOST_ROUNDS = 10  # of the table
_MOST_COLUMNS = 6
_LONGEST_NAME, _LONGEST_PATH = 40, 4096  # characters


def result_page(record: RunRecord | None, figures: str) -> str:
    """Return a result as HTML.

    Parameters
    ----------
    record : RunRecord | None
        The record of the run, if there is one.
    figures : str
        A line on what it took.
    """
    if record is None:
        return f"<p><b>Simulation</b>: {escape(figures)}. The app kept no record.</p>"
    parts = [f"<p><b>{_text(record.strategy)}</b>, run {_text(record.path.name)}: {_end(record)}"]
    parts.append(f"<br>{escape(figures)}</p>")
    parts.append(_curve(record))
    parts.append(_table(record))
    report = record.path / REPORT
    if report.is_file():
        link = f'<a href="{escape(report.as_uri())}">Report</a>'
        parts.append(f"<p>{link}: {_text(str(report), _LONGEST_PATH)}</p>")
    return "".join(parts)


def _end(record: RunRecord) -> str:
    if record.best is None:
        return f"{record.status} after {record.rounds_done} of {record.num_rounds} rounds"
    best = f"{_text(record.best.metric)} {value_text(record.best.metric, record.best.value)}"
    return f"{record.status}; best model in round {record.best.round}, {best}"


def _curve(record: RunRecord) -> str:
    """Return the metric that picks the best model over the rounds, or nothing without one."""
    if record.best is None:
        return ""
    name = record.best.metric
    points = [
        (each.round, float(value))
        for each in record.rounds
        if isinstance(value := each.metrics.get(name), int | float) and is_ordinary(value)
    ]
    if len(points) < 2:
        return ""
    low, high = min(y for _, y in points), max(y for _, y in points)
    line = " ".join(_at(point, points, low, high) for point in points)
    best = next(point for point in points if point[0] == record.best.round)
    x, _, y = _at(best, points, low, high).partition(",")
    return (
        f'<svg role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}">'
        f"<title>{_text(name)} from {value_text(name, low)} to {value_text(name, high)}, rounds "
        f"{points[0][0]} to {points[-1][0]}</title>"
        f'<polyline points="{line}" fill="none" stroke="#1f77b4" stroke-width="2"/>'
        f'<circle cx="{x}" cy="{y}" r="4" fill="#d62728"/></svg>'
    )


def _at(
    point: tuple[int, float], points: Sequence[tuple[int, float]], low: float, high: float
) -> str:
    """Return where a point is drawn, as ``x,y``."""
    first, last = points[0][0], points[-1][0]
    across = (point[0] - first) / max(1, last - first)
    up = (point[1] - low) / (high - low) if high > low else 0.5
    x = _EDGE + across * (_WIDTH - 2 * _EDGE)
    y = _HEIGHT - _EDGE - up * (_HEIGHT - 2 * _EDGE)
    return f"{x:.1f},{y:.1f}"


def _table(record: RunRecord) -> str:
    """Return the last rounds, with the metrics of the server and those of the training."""
    rounds = [each for each in record.rounds if each.finished][-_MOST_ROUNDS:]
    names = list(dict.fromkeys(name for each in rounds for name in _numbers(each.metrics)))
    trained = list(dict.fromkeys(name for each in rounds for name in _numbers(each.train_metrics)))
    columns = [(name, False) for name in names] + [(name, True) for name in trained]
    columns = columns[:_MOST_COLUMNS]
    head = "".join(f"<th>{_text(name)}</th>" for name, _ in columns)
    rows = "".join(
        f"<tr><td>{each.round}</td><td>{len(each.updates)}/{len(each.clients)}</td>"
        + "".join(
            f"<td>{_cell(name, (each.train_metrics if training else each.metrics).get(name))}</td>"
            for name, training in columns
        )
        + "</tr>"
        for each in rounds
    )
    return f"<table><thead><tr><th>round</th><th>clients</th>{head}</tr></thead>{rows}</table>"


def _numbers(metrics: Mapping[str, object]) -> list[str]:
    return [name for name, value in metrics.items() if isinstance(value, int | float)]


def _cell(name: str, value: object) -> str:
    if not isinstance(value, int | float):
        return ""
    return value_text(name, value)


def _text(text: str, limit: int = _LONGEST_NAME) -> str:
    return escape(printable(text, limit))
