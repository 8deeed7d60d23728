"""A list of runs for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich.table import Table
from rich.text import Text

from fedwaggle.errors import ConfigError
from fedwaggle.numbers import value_text
from fedwaggle.runs.events import BestModel
from fedwaggle.runs.listing.finding import RunListing
from fedwaggle.text import printable

__all__ = [
    "SORT_KEYS",
    "STATUS_STYLES",
    "cells_of",
    "differences",
    "duration",
    "filtered",
    "render_runs",
    "sorted_runs",
]

STATUS_STYLES = {
    "running": "cyan",
    "finished": "green",
    "failed": "red",
    "interrupted": "yellow",
    "unreadable": "red",
}
SORT_KEYS = ("started", "name", "app", "status", "rounds", "best", "seconds", "seed")

_NOT_COMPARED = {"outputs", "run-name", "resume", "fork", "tracker", "wandb-project"}


def render_runs(listings: Sequence[RunListing]) -> Table:
    """Return runs as a table for a terminal.

    Examples
    --------
    >>> from pathlib import Path
    >>> from rich.console import Console
    >>> best = BestModel(round=7, metric="accuracy", value=0.8861, sha256="")
    >>> run = RunListing(
    ...     Path("20260102T030405Z-iid"), "iid", "finished", seconds=75.0, rounds=8, num_rounds=8,
    ...     best=best,
    ... )
    >>> Console(width=90).print(render_runs([run]))  # doctest: +NORMALIZE_WHITESPACE
     run  status    rounds  best                           time  folder
     iid  finished     8/8  accuracy 88.61 % (round 7)     1:15  20260102T030405Z-iid
    """
    differ = differences([each.config for each in listings])
    has_apps = len({each.app for each in listings}) > 1
    table = Table(box=None, header_style="bold")
    table.add_column("run", overflow="fold", min_width=8)
    if has_apps:
        table.add_column("app", overflow="fold")
    table.add_column("status", no_wrap=True)
    table.add_column("rounds", no_wrap=True, justify="right")
    table.add_column("best", overflow="fold", min_width=8)
    table.add_column("time", no_wrap=True, justify="right")
    if any(differ):
        table.add_column("differs by", overflow="fold")
    table.add_column("folder", overflow="fold", min_width=16)  # of a start's time
    for each, values in zip(listings, differ, strict=True):
        cells = cells_of(each, values)
        table.add_row(
            Text(cells["name"]),
            *([Text(cells["app"])] if has_apps else []),
            Text(cells["status"], style=STATUS_STYLES[each.status]),
            cells["rounds"],
            Text(cells["best"], style="red" if each.error else ""),
            cells["time"],
            *([Text(cells["differs"])] if any(differ) else []),
            Text(cells["folder"]),
        )
    return table


def cells_of(each: RunListing, differs: Mapping[str, Any]) -> dict[str, str]:
    """Return what a list shows of a run, as texts.

    Parameters
    ----------
    each : RunListing
        The run.
    differs : Mapping[str, Any]
        The settings that tell it from the others, as :func:`differences` returns them.
    """
    return {
        "name": printable(each.name, 64),
        "app": printable(each.app, 64),
        "status": each.status,
        "rounds": f"{each.rounds}/{each.num_rounds}",
        "best": printable(each.error, 120) or _best(each.best),
        "time": duration(each.seconds),
        "differs": _settings(differs),
        "folder": printable(each.path.name),
    }


def differences(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each config, the keys whose values are not the same in all of them.

    Examples
    --------
    >>> differences([{"lr": 0.1, "seed": 0}, {"lr": 0.2, "seed": 0}])
    [{'lr': 0.1}, {'lr': 0.2}]
    """
    known = [config for config in configs if config]
    keys = dict.fromkeys(key for config in known for key in config if key not in _NOT_COMPARED)
    vary = [key for key in keys if len({repr(config.get(key)) for config in known}) > 1]
    return [{key: config[key] for key in vary if key in config} for config in configs]


def sorted_runs(listings: Sequence[RunListing], key: str) -> list[RunListing]:
    """Return runs in the order of one of ``SORT_KEYS``; those without a value come first.

    Raises
    ------
    ConfigError
        If there is no such key.
    """
    if key not in SORT_KEYS:
        raise ConfigError([f"--sort: expected one of {', '.join(SORT_KEYS)}, got {key!r}"])

    def value_of(each: RunListing) -> Any:  # noqa: ANN401  # of the key's type
        return (each.best and each.best.value) if key == "best" else getattr(each, key)

    missing = [each for each in listings if value_of(each) is None]
    return missing + sorted((e for e in listings if value_of(e) is not None), key=value_of)


def filtered(listings: Sequence[RunListing], pairs: Sequence[str]) -> list[RunListing]:
    """Return the runs that all pairs ``key=value`` are true of.

    A key is ``status``, ``name``, ``app`` or a key of the run config.

    Raises
    ------
    ConfigError
        If a pair has no ``=``.
    """
    if mistakes := [
        f"--filter: expected KEY=VALUE, got {pair!r}" for pair in pairs if "=" not in pair
    ]:
        raise ConfigError(mistakes)
    asked = [pair.split("=", 1) for pair in pairs]

    def said(each: RunListing, key: str) -> str:
        own = {"status": each.status, "name": each.name, "app": each.app}
        return str({**each.config, **own}.get(key, ""))

    return [each for each in listings if all(said(each, key) == value for key, value in asked)]


def duration(seconds: float) -> str:
    """Return a duration as ``minutes:seconds``, or with hours and days where it has any.

    Examples
    --------
    >>> duration(75.0), duration(3661.4)
    ('1:15', '1:01:01')
    """
    text = str(timedelta(seconds=round(seconds)))
    return text.removeprefix("0:").removeprefix("0")


def _best(best: BestModel | None) -> str:
    if best is None:
        return ""
    value = value_text(best.metric, best.value)
    return f"{printable(best.metric, 40)} {value} (round {best.round})"


def _settings(values: Mapping[str, Any]) -> str:
    return printable(" ".join(f"{key}={value}" for key, value in values.items()), 120)
