"""The end of a run on a terminal: what came of it, and what to do next. Pure functions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fedwaggle.numbers import value_text
from fedwaggle.runs.listing.table import STATUS_STYLES, duration
from fedwaggle.runs.paths import BEST, REPORT
from fedwaggle.runs.record import RunRecord
from fedwaggle.text import printable

__all__ = ["next_command", "summary"]

_MOST_REASONS = 3


def summary(run: RunRecord, here: Path) -> Panel:
    """Return a box with what came of a run.

    Parameters
    ----------
    run : RunRecord
        The run; its updates are not needed.
    here : Path
        The working folder: a path below it is shown from here on.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, said in _facts(run, here).items():
        table.add_row(name, Text(said))
    style = STATUS_STYLES[run.status]
    title = Text(f" {printable(run.path.name, 60)}: {run.status} ", style=style)
    return Panel(table, title=title, title_align="left", border_style=style, expand=False)


def next_command(run: RunRecord, app: str) -> str:
    """Return the command that people want next, or an empty text if there is none.

    Parameters
    ----------
    run : RunRecord
        The run.
    app : str
        The app's folder, as a command names it; empty if it has none.

    Examples
    --------
    >>> from pathlib import Path
    >>> next_command(RunRecord(Path("outputs/a"), status="interrupted"), "bee-garden")
    'waggle run bee-garden --resume a'
    """
    if run.status == "finished":
        return f"waggle report {run.path.name} --open"
    return f"waggle run {app} --resume {run.path.name}" if app else ""


def _facts(run: RunRecord, here: Path) -> dict[str, str]:
    facts = {}
    if run.best is not None:
        metric = printable(run.best.metric, 40)
        facts["best"] = (
            f"{metric} {value_text(run.best.metric, run.best.value)} in round {run.best.round}"
        )
    facts["time"] = f"{duration(run.seconds)}, {run.rounds_done} of {run.num_rounds} rounds"
    if trouble := _trouble(run):
        facts["clients"] = trouble
    for name, file in (("model", BEST), ("report", REPORT)):
        if (run.path / file).exists():
            folder = run.path.relative_to(here) if run.path.is_relative_to(here) else run.path
            facts[name] = str(folder / file)
    if run.not_repeatable:
        facts["not repeatable"] = printable(run.not_repeatable[0], 300)
    return facts


def _trouble(run: RunRecord) -> str:
    """Return how many replies were quarantined, with the codes that came most, and missing."""
    codes = Counter(refused.code for each in run.rounds for refused in each.quarantined)
    missing = sum(len(each.missing) + len(each.evaluate_missing) for each in run.rounds)
    if not codes and not missing:
        return ""
    some = ", ".join(f"{code} {n}" for code, n in codes.most_common(_MOST_REASONS))
    reasons = f" ({some})" if some else ""
    return f"{codes.total()} quarantined{reasons}, {missing} missing"
