"""Runs side by side: what was asked differently, and what came out.

Runs that differ by nothing but their seed are one group: its numbers are given as the mean and
the sample standard deviation over seeds.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedwaggle.errors import RunError
from fedwaggle.numbers import is_ordinary
from fedwaggle.runs.files import write_atomic
from fedwaggle.runs.record import config_of, is_being_written
from fedwaggle.runs.report.charts.figure import Figure, Trace, layout, line, rounded
from fedwaggle.runs.report.charts.models import best_value, families, is_share
from fedwaggle.runs.report.comparing.groups import ComparedRun, Group, comparison_tables, grouped
from fedwaggle.runs.report.comparing.parallel import parallel_figures
from fedwaggle.runs.report.page import build_page
from fedwaggle.runs.report.render import footer, paired, read_story
from fedwaggle.runs.report.words import plotly_text, title_text
from fedwaggle.text import printable

__all__ = ["write_comparison"]

_MOST_FIGURES = 8


def write_comparison(runs: Sequence[Path], output: Path) -> Path:
    """Write one HTML file that compares runs.

    Parameters
    ----------
    runs : Sequence[Path]
        Folders of runs, two at least.
    output : Path
        The file to write.

    Returns
    -------
    Path
        The same file.

    Raises
    ------
    RunError
        If there are fewer than two runs, one is named twice or cannot be read, or the file
        cannot be written.
    """
    if len(runs) < 2:
        raise RunError(f"compare: expected two runs at least, got {len(runs)}; name another one")
    twice = [path for path, count in Counter(run.resolve() for run in runs).items() if count > 1]
    if twice:
        raise RunError(f"compare: expected each run once, got {twice[0].name} again; leave it out")
    compared = [_read(path, label) for path, label in zip(runs, _labels(runs), strict=True)]
    page = _render(compared, datetime.now(UTC))
    try:
        write_atomic(output, page.encode())
    except OSError as error:
        raise RunError(
            f"{output}: cannot be written ({error.strerror}); name another file"
        ) from error
    return output


def _labels(paths: Sequence[Path]) -> list[str]:
    """Return the folders' names, with the folder above if two are the same."""
    full = [path.resolve() for path in paths]
    if len({path.name for path in full}) == len({*full}):
        return [printable(path.name, 60) for path in full]
    return [printable(f"{path.parent.name}/{path.name}", 80) for path in full]


def _read(path: Path, label: str) -> ComparedRun:
    story = read_story(path)
    curves = {family.name: family.main for family in families(story.finished_rounds)}
    return ComparedRun(
        label,
        story,
        is_being_written(path),
        config_of(story.started, story.resumes),
        best_value(story),
        curves,
    )


def _render(runs: Sequence[ComparedRun], now: datetime) -> str:
    groups = grouped(runs)
    metrics = _metrics(runs)
    curves = [_curves(groups, m, f"metric-{i}") for i, m in enumerate(metrics)]
    figures = paired([*curves, *parallel_figures(groups)])
    rounds = [n for run in runs for n in run.story.rounds]
    data: dict[str, Any] = {
        "rounds": [min(rounds, default=0), max(rounds, default=0)],
        "cells": {"ids": [], "names": [], "sizes": []},
        "figures": [figure.payload() for figure in figures],
        "live": None,
    }
    return build_page(
        "compare.html",
        title=f"Comparison of {len(runs)} runs",
        data=data,
        subtitle=f"Experiments: {len(groups)}. Runs of one differ by nothing but their seed.",
        notes=_same_models(runs),
        tables=comparison_tables(runs, groups, metrics),
        figures=figures,
        footer=footer(now),
    )


def _metrics(runs: Sequence[ComparedRun]) -> list[str]:
    """Return the metrics to compare: the one that chose the best models first."""
    best = [run.best.metric for run in runs if run.best]
    names = dict.fromkeys([*best, *(name for run in runs for name in run.curves)])
    return [name for name in names if any(name in run.curves for run in runs)][:_MOST_FIGURES]


def _same_models(runs: Sequence[ComparedRun]) -> list[str]:
    """Return which runs ended with the same model, bit for bit."""
    owners: dict[str, list[str]] = {}
    for run in runs:
        if run.sha256:
            owners.setdefault(run.sha256, []).append(run.label)
    return [
        f"{' and '.join(labels)} ended with the same model, bit for bit."
        for labels in owners.values()
        if len(labels) > 1
    ]


def _curves(groups: Sequence[Group], metric: str, key: str) -> Figure:
    """Return every run's curve, and the mean and spread of each group of several seeds."""
    traces: list[Trace] = []
    for group in groups:
        runs = [run for run in group.by_seed if run.curves.get(metric)]
        if len(runs) == 1:
            curve = runs[0].curves[metric]
            traces.append(
                line(list(curve), curve.values(), plotly_text(group.name, 70), group.color)
            )
        elif runs:
            traces += _group_traces(group, [run.curves[metric] for run in runs])
    return Figure(
        key,
        f"{title_text(metric, 40)} by round",
        note="Of several seeds: the mean, one standard deviation around it, and each run thin.",
        traces=traces,
        layout=layout(
            height=360,
            yaxis={"tickformat": ".0%"} if is_share(metric, _values(metric, groups)) else {},
        ),
    )


def _values(metric: str, groups: Sequence[Group]) -> list[float]:
    """Return every run's values of a metric, but for those that no axis can show."""
    curves = [run.curves.get(metric, {}) for group in groups for run in group.runs]
    return [value for curve in curves for value in curve.values() if is_ordinary(value)]


def _group_traces(group: Group, curves: Sequence[dict[int, float]]) -> list[Trace]:
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    rounds = [n for n in shared if all(is_ordinary(curve[n]) for curve in curves)]
    means = [statistics.fmean(curve[n] for curve in curves) for n in rounds]
    sds = [statistics.stdev(curve[n] for curve in curves) for n in rounds]
    hidden = {"showlegend": False, "hoverinfo": "skip", "legendgroup": group.name[:2]}
    edge = {"type": "scatter", "mode": "lines", "x": rounds, "line": {"width": 0}, **hidden}
    low = {**edge, "y": rounded(m - s for m, s in zip(means, sds, strict=True))}
    high = {
        **edge,
        "y": rounded(m + s for m, s in zip(means, sds, strict=True)),
        "fill": "tonexty",
        "fillcolor": f"{group.color}-soft",
    }
    thin = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": list(curve),
            "y": rounded(curve.values()),
            "line": {"color": group.color, "width": 0.7},
            **hidden,
        }
        for curve in curves
    ]
    mean = line(rounds, means, plotly_text(group.name, 70), group.color)
    return [low, high, *thin, {**mean, "legendgroup": group.name[:2]}]
