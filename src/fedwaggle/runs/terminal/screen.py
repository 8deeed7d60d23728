"""One picture of a run for a terminal: a pure function of its record.

What clients said is never read as markup: all of it passes :func:`fedwaggle.text.printable` and
is set as plain text.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedwaggle.numbers import as_float
from fedwaggle.runs.events import ClientQuarantined
from fedwaggle.runs.listing.table import STATUS_STYLES, duration
from fedwaggle.runs.record import RoundRecord, RunRecord
from fedwaggle.text import printable

__all__ = ["frame", "sparkline"]

LEVELS = "▁▂▃▄▅▆▇█"
LABEL_COLUMNS = 20
MAX_SERIES = 4
MAX_NEWS = 6

# What a client did in a round: the sign, its style, and its name in the legend.
STATES = {
    "converged": ("●", "green"),
    "learning": ("○", "blue"),
    "quarantined": ("✗", "bold red"),
    "missing": ("?", "yellow"),
    "waiting": ("…", "cyan"),
    "not sampled": ("·", "bright_black"),
}


def frame(run: RunRecord, width: int, *, client_rows: int = 16) -> RenderableType:
    """Return the picture of a run.

    Parameters
    ----------
    run : RunRecord
        The run.
    width : int
        Columns of the terminal.
    client_rows : int (default: 16)
        The most clients that have a row of their own; those in trouble come first.
    """
    return Group(
        _header(run),
        _progress(run, width),
        Text(),
        *_series(run, width),
        Text(),
        *_grid(run, width, client_rows),
        Text(),
        *_news(run),
        _end(run),
    )


def sparkline(values: Sequence[float], columns: int) -> str:
    """Return values as a row of bars; an x stands for what is not a finite number.

    Parameters
    ----------
    values : Sequence[float]
        The values, first to last.
    columns : int
        The most columns; with more values, each bar is the last of several.

    Examples
    --------
    >>> sparkline([0.0, 0.5, float("nan"), 1.0], 10)
    '▁▅x█'
    >>> sparkline(range(100), 4)
    '▁▃▆█'
    """
    if len(values) > columns:
        values = [values[(i + 1) * len(values) // columns - 1] for i in range(columns)]
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)

    def bar(value: float) -> str:
        if not math.isfinite(value):
            return "x"
        # Halved first: the difference of two floats may be beyond all floats.
        span = high / 2 - low / 2
        share = (value / 2 - low / 2) / span if span > 0 else 0.0
        return LEVELS[min(int(share * len(LEVELS)), len(LEVELS) - 1)]

    return "".join(map(bar, values))


def _header(run: RunRecord) -> Text:
    about = [run.strategy, run.engine, "" if run.seed is None else f"seed {run.seed}"]
    if run.resumed:
        about.append(f"resumed {run.resumed}x")
    if run.damaged_lines:
        about.append(f"damaged lines skipped: {run.damaged_lines:,}")
    return Text.assemble(
        (printable(run.name, 60), "bold"),
        "  ",
        (run.status, STATUS_STYLES[run.status]),
        "  ",
        (", ".join(printable(each, 40) for each in about if each), "bright_black"),
    )


def _progress(run: RunRecord, width: int) -> Table:
    done, total = run.rounds_done, max(run.num_rounds, run.rounds_done)
    times = [each.seconds for each in run.rounds if each.finished and each.round > 0]
    words = f"round {done}/{total}  {duration(run.seconds)}"
    if run.status == "running" and times and done < total:
        words += f", about {duration((total - done) * sum(times) / len(times))} to go"
    row = Table.grid(padding=(0, 2))
    row.add_row(
        ProgressBar(total=max(total, 1), completed=done, width=max(10, min(40, width - 45))),
        Text(words),
    )
    return row


def _series(run: RunRecord, width: int) -> list[Text]:
    """Return a line for each of the first few metrics: its name, its course, its last value."""
    lines = []
    for label, values in _courses(run)[:MAX_SERIES]:
        lines.append(
            Text.assemble(
                (printable(label, LABEL_COLUMNS - 2).ljust(LABEL_COLUMNS), "bold"),
                (sparkline(values, max(8, min(60, width - 40))), "cyan"),
                f"  {values[-1]:.4g}",
            )
        )
    return lines


def _courses(run: RunRecord) -> list[tuple[str, list[float]]]:
    """Return the course of each single-valued metric, accuracy and loss first."""
    courses: dict[str, list[float]] = {}
    for each in run.rounds:
        shown = each.metrics or each.evaluate_metrics or each.train_metrics
        for name, value in shown.items():
            if not isinstance(value, list):
                courses.setdefault(name, []).append(as_float(value))
    rates = [each.learning_rate for each in run.rounds if each.learning_rate is not None]
    first = [name for word in ("accuracy", "loss") for name in courses if word in name]
    ordered = dict.fromkeys([*first, *courses])
    return [(name, courses[name]) for name in ordered] + ([("learning rate", rates)] * bool(rates))


def _grid(run: RunRecord, width: int, client_rows: int) -> list[RenderableType]:
    """Return the clients over the last rounds, and what the signs mean."""
    rounds = [each for each in run.rounds if each.round > 0]
    rounds = rounds[-max(5, (width - LABEL_COLUMNS - 2) // 2) :]
    states = [_states(each, run) for each in rounds]
    clients = sorted({client for each in states for client in each}, key=_natural)
    if not clients:
        return [Text("no client was sampled yet", style="bright_black")]
    trouble = Counter(
        client
        for each in states
        for client, state in each.items()
        if state in ("quarantined", "missing")
    )
    shown = sorted(clients, key=lambda client: -trouble[client])[:client_rows]
    lines: list[RenderableType] = [_first_and_last(rounds)]
    for client in sorted(shown, key=_natural):
        line = Text(printable(client, LABEL_COLUMNS - 2).ljust(LABEL_COLUMNS))
        for each in states:
            sign, style = STATES[each.get(client, "not sampled")]
            line.append(f"{sign} ", style=style)
        lines.append(line)
    if len(clients) > len(shown):
        lines.append(Text(f"and {len(clients) - len(shown)} more clients", style="bright_black"))
    lines.append(_legend())
    return lines


def _states(each: RoundRecord, run: RunRecord) -> dict[str, str]:
    """Return what each sampled client did in a round."""
    unanswered = "missing" if each.finished or run.status != "running" else "waiting"
    states = dict.fromkeys([*each.clients, *each.missing], unanswered)
    for update in each.updates:
        converged = (update.metadata or {}).get("converged") is True
        states[update.client] = "converged" if converged else "learning"
    states |= dict.fromkeys((refused.client for refused in _refused(each)), "quarantined")
    return states


def _refused(each: RoundRecord) -> Iterable[ClientQuarantined]:
    """Return the refusals of training; a client's evaluation may be refused by itself."""
    return (refused for refused in each.quarantined if refused.phase == "train")


def _first_and_last(rounds: Sequence[RoundRecord]) -> Text:
    first, last = rounds[0].round, rounds[-1].round
    label = f"rounds {first} to {last}" if last > first else f"round {first}"
    return Text(label, style="bold")


def _legend() -> Text:
    legend = Text()
    for name, (sign, style) in STATES.items():
        legend.append(f"{sign} ", style=style).append(f"{name}  ", style="bright_black")
    return legend


def _news(run: RunRecord) -> list[Text]:
    """Return the last decisions and quarantines, the newest last."""
    news: list[tuple[datetime, Text]] = []
    for each in run.rounds:
        for refused in each.quarantined:
            said = f"client {printable(refused.client, 30)}: {printable(refused.reason, 200)}"
            news.append((refused.time, _line(each.round, STATES["quarantined"], said)))
        for decision in each.decisions:
            said = f"{decision.policy}: {decision.action} ({decision.reason})"
            news.append((decision.time, _line(each.round, ("→", "magenta"), printable(said, 250))))
    return [line for _, line in sorted(news, key=lambda item: item[0])[-MAX_NEWS:]]


def _line(server_round: int, sign: tuple[str, str], said: str) -> Text:
    # One line each: the picture must not grow with what a client writes.
    line = Text(no_wrap=True, overflow="ellipsis")
    return (
        line.append(f"round {server_round:<4} ").append(f"{sign[0]} ", style=sign[1]).append(said)
    )


def _end(run: RunRecord) -> Text:
    style = STATUS_STYLES[run.status]
    best = ""
    if run.best is not None:
        metric = printable(run.best.metric, 40)
        best = f"best {metric} {run.best.value:.4g} in round {run.best.round}"
    match run.status:
        case "failed":
            said = f"failed: {printable(run.error, 300)}"
        case "interrupted":
            said = "interrupted: no process is writing this run; it can be resumed"
        case _:
            return Text(best, style=style)
    return Text("\n".join(filter(None, [best, said])), style=style)


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key that sorts client 10 behind client 9."""
    parts = re.findall(r"[0-9]{1,18}|[^0-9]+", name[:200])
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)
