"""Our engine beside stock Flower and a bare torch loop.

``python benchmarks/bench_engine.py`` runs every workload: in each repeat all contestants run one
after the other, each in fresh processes, forwards and backwards in turn, so that what else the
machine does meets all of them. It prints medians over the repeats, and ratios within a repeat,
with least and most. ``--only W2,W5`` picks figures, ``--quick`` is a smoke test of two minutes,
``--write`` puts the tables into ``benchmarks/RESULTS.md``.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import psutil
from measuring import Outcome
from rich.console import Console
from rich.table import Table
from workloads import Figure, Workload, all_workloads

RESULTS = Path(__file__).parent / "RESULTS.md"

Outcomes = dict[str, list[Outcome]]  # of each contestant, one for each repeat


def measure(workload: Workload, repeats: int, console: Console) -> Outcomes:
    """Run the contestants in turn, ``repeats`` times."""
    outcomes: Outcomes = {name: [] for name in workload.contestants}
    for repeat in range(repeats):
        names = list(outcomes) if repeat % 2 == 0 else list(reversed(outcomes))
        for name in names:
            with console.status(f"{workload.figures[0].key}, repeat {repeat + 1}: {name}"):
                outcomes[name].append(workload.contestants[name].run())
    return outcomes


def rows(figure: Figure, outcomes: Outcomes) -> list[list[str]]:
    """Return the table of a figure: its headers, then a row for each contestant."""
    compared = next(iter(figure.columns.values()))
    baseline = [compared(outcome) for outcome in outcomes[figure.baseline]]
    table = [["", *figure.columns, f"of {figure.baseline}"]]
    for name, runs in outcomes.items():
        cells = [spread([read(run) for run in runs]) for read in figure.columns.values()]
        ratios = [compared(run) / base for run, base in zip(runs, baseline, strict=True)]
        table.append([name, *cells, spread(ratios)])
    return table


def spread(values: Sequence[float]) -> str:
    """Return the median of values, and their least and most.

    Examples
    --------
    >>> spread([1.0, 3.0, 2.0]), spread([0.12345]), spread([float("nan")])
    ('2.00 (1.00 to 3.00)', '0.123', '')
    """
    if any(value != value for value in values):  # nan: this contestant has no such value
        return ""
    middle = f"{statistics.median(values):#.3g}".rstrip(".")
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):#.3g} to {max(values):#.3g})"


def show(figure: Figure, table: list[list[str]], console: Console) -> None:
    """Print a figure."""
    shown = Table(*table[0], title=f"{figure.key}: {figure.title}\nwanted: {figure.wanted}")
    for row in table[1:]:
        shown.add_row(*row)
    console.print(shown)


def markdown(figure: Figure, table: list[list[str]], repeats: int) -> str:
    """Return a figure as a section of the results."""
    lines = [f"| {' | '.join(row)} |" for row in table]
    lines.insert(1, "|---" * len(table[0]) + "|")
    heading = f"## {figure.key}: {figure.title}\n\nWanted: {figure.wanted}. {machine()}. "
    return f"{heading}{repeats} repeats.\n\n" + "\n".join(lines)


def machine() -> str:
    """Say what the figures were measured on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("flwr", "ray", "torch"))
    memory = psutil.virtual_memory().total / 1e9
    return (
        f"{psutil.cpu_count()} cores ({platform.machine()}), {memory:.0f} GB, "
        f"Python {platform.python_version()}, {packages}"
    )


def write(key: str, text: str) -> None:
    """Put a section between its marks in the results; leave the rest alone."""
    begin, end = f"<!-- {key}: begin -->", f"<!-- {key}: end -->"
    section = f"{begin}\n{text}\n{end}"
    old = RESULTS.read_text() if RESULTS.exists() else ""
    if begin in old:
        before, _, rest = old.partition(begin)
        RESULTS.write_text(before + section + rest.partition(end)[2])
    else:
        RESULTS.write_text(f"{old.rstrip()}\n\n{section}\n".lstrip())


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, one repeat")
    parser.add_argument("--only", default="", metavar="W1,W2,...", help="these figures")
    parser.add_argument("--repeats", type=int, help="3 if left out")
    parser.add_argument("--write", action="store_true", help="into RESULTS.md")
    options = parser.parse_args()
    repeats = options.repeats or (1 if options.quick else 3)
    wanted = set(filter(None, options.only.upper().split(",")))
    console = Console()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for workload in all_workloads(options.quick, Path(folder)):
            figures = [f for f in workload.figures if not wanted or f.key in wanted]
            outcomes = measure(workload, repeats, console) if figures else {}
            for figure in figures:
                table = rows(figure, outcomes)
                show(figure, table, console)
                if options.write:
                    write(figure.key, markdown(figure, table, repeats))


if __name__ == "__main__":
    main()
