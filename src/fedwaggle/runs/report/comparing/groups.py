"""Runs that are compared, as values and as tables.

Runs that differ by nothing but their seed are one group: its numbers are given as the mean and
the sample standard deviation over seeds.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedwaggle.numbers import is_ordinary, number_text, value_text
from fedwaggle.runs.events import RunFinished
from fedwaggle.runs.report.charts.figure import SERIES
from fedwaggle.runs.report.charts.models import BestValue
from fedwaggle.runs.report.story import RunStory
from fedwaggle.runs.report.summary import status
from fedwaggle.runs.report.tables import TableCell, TableColumn, TableOf, TableRow
from fedwaggle.runs.report.words import bytes_text, seconds_text, title_text
from fedwaggle.text import printable

__all__ = ["ComparedRun", "Group", "comparison_tables", "differing_keys", "grouped"]

# Keys that say where things go, not what is computed; the seed is what a group varies.
_NOT_THE_EXPERIMENT = {
    "data-dir",
    "fork",
    "outputs",
    "resume",
    "run-name",
    "seed",
    "tracker",
    "wandb-project",
}


@dataclass(frozen=True)
class ComparedRun:
    """A run, reduced to what is compared."""

    label: str
    story: RunStory
    is_live: bool  # a process is writing it
    config: dict[str, Any]
    best: BestValue | None
    curves: dict[str, dict[int, float]]  # metric to round to value

    @property
    def seed(self) -> int | None:
        """The seed, if the run has begun."""
        return self.story.started.seed if self.story.started else None

    @property
    def experiment(self) -> str:
        """What runs of one group share."""
        begun = self.story.started
        facts = (begun.strategy, begun.nodes) if begun else ()
        config = {k: v for k, v in self.config.items() if k not in _NOT_THE_EXPERIMENT}
        return json.dumps([facts, config], sort_keys=True, default=str)

    @property
    def sha256(self) -> str:
        """The hash of the last model of a run that ended well, else empty."""
        return self.story.ended.sha256 if isinstance(self.story.ended, RunFinished) else ""


@dataclass(frozen=True)
class Group:
    """Runs that differ by nothing but their seed."""

    name: str
    color: str
    runs: Sequence[ComparedRun]

    @property
    def by_seed(self) -> list[ComparedRun]:
        """One run of each seed, so that a repeated run does not count twice."""
        return list({run.seed: run for run in self.runs}.values())

    @property
    def metric(self) -> str:
        """The metric of its best values."""
        return next((run.best.metric for run in self.by_seed if run.best), "")

    @property
    def best(self) -> float | None:
        """The mean of its runs' best values, or None if there is none."""
        found = [run.best for run in self.by_seed if run.best and is_ordinary(run.best.value)]
        values = [best.value for best in found if best.metric == self.metric]
        return statistics.fmean(values) if values else None

    def value_of(self, key: str) -> float | str:
        """Return what its runs were asked, as a number or a text."""
        value = _asked(self.runs[0]).get(key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return value if is_number else _shown(value)  # type: ignore[return-value]


def grouped(runs: Sequence[ComparedRun]) -> list[Group]:
    """Return the runs in groups, each with a name that states what sets it apart."""
    members: dict[str, list[ComparedRun]] = {}
    for run in runs:
        members.setdefault(run.experiment, []).append(run)
    firsts = [group[0] for group in members.values()]
    keys = [key for key in _differing(firsts) if key not in _NOT_THE_EXPERIMENT]
    return [
        Group(_group_name(group[0], keys, number), SERIES[(number - 1) % len(SERIES)], group)
        for number, group in enumerate(members.values(), start=1)
    ]


def differing_keys(groups: Sequence[Group]) -> list[str]:
    """Return the keys of the run config that set groups apart."""
    firsts = [group.runs[0] for group in groups]
    own = {key for run in firsts for key in run.config}
    return [key for key in _differing(firsts) if key in own and key not in _NOT_THE_EXPERIMENT]


def _group_name(run: ComparedRun, keys: Sequence[str], number: int) -> str:
    """Return what sets a group apart, in its own config keys."""
    words = ", ".join(f"{key} = {_shown(_asked(run).get(key))}" for key in keys[:4])
    return f"{number}: {printable(words, 90)}" if words else f"{number}"


def _asked(run: ComparedRun) -> dict[str, Any]:
    """Return the config, and what else a run can differ by."""
    begun = run.story.started
    if begun is None:
        return run.config
    more = {f"version of {name}": number for name, number in begun.versions.items()}
    facts = {"strategy": begun.strategy, "engine": begun.engine, "nodes": begun.nodes}
    return {**run.config, "seed": begun.seed, **facts, **more}


def _differing(runs: Sequence[ComparedRun]) -> list[str]:
    asked = [_asked(run) for run in runs]
    keys = sorted({key for config in asked for key in config})
    return [key for key in keys if len({_shown(config.get(key)) for config in asked}) > 1]


def _shown(value: object) -> str:
    return "" if value is None else printable(str(value), 200)


def comparison_tables(
    runs: Sequence[ComparedRun], groups: Sequence[Group], metrics: Sequence[str]
) -> list[TableOf]:
    """Return the tables: groups with the spread over seeds, runs, and what was asked differently.

    Parameters
    ----------
    runs : Sequence[ComparedRun]
        All of them, as they were named.
    groups : Sequence[Group]
        The same runs in groups.
    metrics : Sequence[str]
        The metrics to compare; the last values of the first three have a column.
    """
    return [_groups_table(groups, metrics), _runs_table(groups), _config_table(runs)]


def _spread_text(metric: str, values: Sequence[float]) -> str:
    """Return mean and sample standard deviation, or the only value.

    Examples
    --------
    >>> _spread_text("accuracy", [0.88, 0.90]), _spread_text("loss", [0.5])
    ('89.00 % ± 1.41 %', '0.5')
    """
    if not values:
        return ""
    mean = value_text(metric, statistics.fmean(values))
    if len(values) < 2:
        return mean
    sd = statistics.stdev(values)
    # A percentage has two decimals; of another number, two digits of its spread are enough.
    spread = value_text(metric, sd) if mean.endswith("%") else number_text(sd, digits=2)
    return f"{mean} ± {spread}"


def _groups_table(groups: Sequence[Group], metrics: Sequence[str]) -> TableOf:
    rows = []
    for group in groups:
        runs = group.by_seed
        best = [run.best for run in runs if run.best and is_ordinary(run.best.value)]
        metric = best[0].metric if best else ""
        cells = [
            TableCell(group.name, "text"),
            _count(len(group.runs)),
            _count(len(runs)),
            _spread_cell(metric, [b.value for b in best if b.metric == metric]),
        ]
        cells += [_spread_cell(name, _last_values(runs, name)) for name in metrics[:3]]
        rows.append(TableRow(cells))
    columns = ["Best", *(f"Last {title_text(name, 30).lower()}" for name in metrics[:3])]
    return TableOf(
        "groups",
        "Experiments: mean ± standard deviation over seeds",
        [TableColumn("Experiment"), *(TableColumn(c, True) for c in ["Runs", "Seeds", *columns])],
        rows,
    )


def _spread_cell(metric: str, values: Sequence[float]) -> TableCell:
    value = statistics.fmean(values) if values else None
    return _number(value, _spread_text(metric, values))


def _number(value: float | None, text: str) -> TableCell:
    """Return a cell of a column that can be sorted; what is not there sorts below the rest."""
    return TableCell(text, "num", -math.inf if value is None else value)


def _last_values(runs: Sequence[ComparedRun], metric: str) -> list[float]:
    curves = [run.curves[metric] for run in runs if run.curves.get(metric)]
    values = [curve[max(curve)] for curve in curves]
    return [value for value in values if is_ordinary(value)]


def _runs_table(groups: Sequence[Group]) -> TableOf:
    rows = [
        TableRow([TableCell(run.label, "text"), *_run_cells(run, group)])
        for group in groups
        for run in group.runs
    ]
    words = ["Experiment", "#Seed", "Status", "#Rounds", "#Best", "#In round", "#Wall time"]
    names = ["Run", *words, "#Bytes up", "SHA-256 (first 16)"]
    columns = [TableColumn(name.lstrip("#"), name.startswith("#")) for name in names]
    return TableOf("runs", "Runs", columns, rows)


def _run_cells(run: ComparedRun, group: Group) -> list[TableCell]:
    ends, best = run.story.finished_rounds, run.best
    up = sum(end.bytes_up for end in ends)
    return [
        TableCell(group.name.split(":")[0]),
        _number(run.seed, "" if run.seed is None else str(run.seed)),
        TableCell(status(run.story, is_live=run.is_live).word),
        _count(sum(end.round > 0 for end in ends)),
        _number(best.value if best else None, value_text(best.metric, best.value) if best else ""),
        _number(best.round if best else None, str(best.round) if best else ""),
        _number(run.story.wall_seconds, seconds_text(run.story.wall_seconds)),
        _number(up, bytes_text(up)),
        TableCell(run.sha256[:16]),
    ]


def _count(number: int) -> TableCell:
    return _number(number, f"{number:,}")


def _config_table(runs: Sequence[ComparedRun]) -> TableOf:
    """Return the keys that differ, with a column for each run."""
    keys = _differing(runs)
    everything = {key for run in runs for key in _asked(run)}
    first = _asked(runs[0])
    rows = [
        TableRow(
            [
                TableCell(printable(key, 80)),
                *(
                    TableCell(
                        _shown(_asked(run).get(key)),
                        "differs" if _shown(_asked(run).get(key)) != _shown(first.get(key)) else "",
                    )
                    for run in runs
                ),
            ]
        )
        for key in keys
    ]
    return TableOf(
        "config",
        "What differs in config and versions",
        [TableColumn("Key"), *(TableColumn(run.label) for run in runs)],
        rows,
        nothing="Nothing: the runs have the same config, seed and versions.",
        note=f"{len(everything) - len(keys)} keys are the same. Marked: not as in the first run.",
    )
