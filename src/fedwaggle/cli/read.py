"""``waggle runs``, ``report``, ``watch``, ``compare``, ``export``, ``track``: readers of runs."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from fedwaggle.cli.base import FAILED, outputs_here
from fedwaggle.errors import ConfigError

__all__ = ["compare", "export", "report", "runs", "track", "watch"]

_LOOK_SECONDS = 0.5
_TRACK_SECONDS = 600.0  # for an upload of a whole run

Run = Annotated[str, typer.Argument(help="A run: latest, its name, or its folder.")]


def runs(
    root: Annotated[
        Path | None, typer.Argument(help="Folder of runs; ./outputs if left out.")
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            metavar="KEY", help="Order: started, name, app, status, rounds, best, seconds or seed."
        ),
    ] = "started",
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="KEY=VALUE",
            help="Show those with this status, name, app or key of the config; repeat.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """List the runs in a folder."""
    from pydantic import TypeAdapter
    from rich.console import Console
    from rich.measure import measure_renderables

    from fedwaggle.runs.listing import RunListing, list_runs
    from fedwaggle.runs.listing.table import filtered, render_runs, sorted_runs

    root = root or outputs_here()
    listings = sorted_runs(filtered(list_runs(root), only or []), sort)
    if as_json:
        typer.echo(TypeAdapter(list[RunListing]).dump_json(listings, indent=2))
    elif listings:
        console, table = Console(), render_runs(listings)
        if not console.is_terminal:  # what reads a file or a pipe wants whole lines
            wide = console.options.update(max_width=10_000)
            console.width = measure_renderables(console, wide, [table]).maximum
        console.print(table)
    else:
        which = f" with {', '.join(only)}" if only else ""
        typer.echo(f"No runs{which} in {root}; `waggle run` makes one.")


def report(
    run: Run = "latest",
    output: Annotated[
        Path | None, typer.Option(help="File to write; report.html in the run by default.")
    ] = None,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Show it in the browser.")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve a page that follows the run, until Ctrl-C.")
    ] = False,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to serve at; any if left out.")
    ] = None,
) -> None:
    """Write the report of a run as one HTML file, or serve it live."""
    from fedwaggle.runs import report as reports
    from fedwaggle.runs.listing import find_run

    if serve and output is not None:
        raise ConfigError(["--output: expected no --serve beside it; a served page is no file"])
    if port is not None and not serve:
        raise ConfigError(["--port: expected --serve beside it; a file is written without a port"])
    path = find_run(run, outputs_here())
    if serve:
        reports.serve(path, port or 0, open_browser=open_browser)
        return
    file = reports.write_report(path, output)
    typer.echo(file)
    if open_browser:
        webbrowser.open(file.absolute().as_uri())


def watch(run: Run = "latest") -> None:
    """Watch a run in the terminal, until it ends or q is pressed."""
    from fedwaggle.runs.listing import find_run
    from fedwaggle.runs.terminal.watch import watch as watch_run

    watch_run(find_run(run, outputs_here()))


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Two runs or more: latest, its name, or its folder.", metavar="RUN RUN..."
        ),
    ],
    output: Annotated[Path, typer.Option(help="File to write.")] = Path("comparison.html"),
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Show it in the browser.")
    ] = False,
) -> None:
    """Compare runs in one HTML file."""
    from fedwaggle.runs.listing import find_run
    from fedwaggle.runs.report.comparing import write_comparison

    root = outputs_here()
    file = write_comparison([find_run(run, root) for run in runs], output)
    typer.echo(file)
    if open_browser:
        webbrowser.open(file.absolute().as_uri())


def track(
    run: Run = "latest",
    tracker: Annotated[
        list[str] | None, typer.Option(help="wandb, mlflow, tensorboard or csv; repeat.")
    ] = None,
    project: Annotated[
        str, typer.Option(help="Project in Weights & Biases; experiment in MLflow.")
    ] = "fedwaggle",
) -> None:
    """Show a run in a tracker, whole: one that has ended, or one that goes on until its end."""
    import time

    from fedwaggle.config import added_trackers
    from fedwaggle.runs.listing import find_run
    from fedwaggle.runs.record import is_being_written
    from fedwaggle.trackers import TRACKERS, open_trackers

    known = [*TRACKERS, *added_trackers().names]
    if unknown := [name for name in tracker or [""] if name not in known]:
        names = ", ".join(known)
        raise ConfigError([f"--tracker: expected one of {names}, got {name!r}" for name in unknown])
    path = find_run(run, outputs_here())
    started = open_trackers(tracker or (), path, project=project)
    while is_being_written(path) and not all(one.is_dropped for one in started):
        time.sleep(_LOOK_SECONDS)
    for one in started:
        one.close(_TRACK_SECONDS)
    if len(started) < len(set(tracker or ())) or any(one.is_dropped for one in started):
        raise typer.Exit(FAILED)
    typer.echo(f"{path.name} is shown in {', '.join(one.name for one in started)}")


def export(
    run: Run = "latest",
    as_csv: Annotated[bool, typer.Option("--csv", help="Write CSV files.")] = False,
    as_parquet: Annotated[bool, typer.Option("--parquet", help="Write Parquet files.")] = False,
    as_latex: Annotated[
        bool, typer.Option("--latex", help="Write the rounds as a table for LaTeX (booktabs).")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write into; `export` in the run if left out.")
    ] = None,
) -> None:
    """Write a run's rounds and updates as tables."""
    from fedwaggle.runs import load
    from fedwaggle.runs.listing import find_run

    if not (as_csv or as_parquet or as_latex):
        raise ConfigError(["export: expected --csv, --parquet or --latex; choose one, or several"])
    path = find_run(run, outputs_here())
    record = load(path)
    folder = output or path / "export"
    folder.mkdir(parents=True, exist_ok=True)
    rounds, updates = record.rounds_to_pandas(), record.to_pandas()
    if as_csv:
        rounds.to_csv(folder / "rounds.csv", index=False)
        updates.to_csv(folder / "updates.csv", index=False)
    if as_parquet:
        rounds.to_parquet(folder / "rounds.parquet", index=False)
        updates.to_parquet(folder / "updates.parquet", index=False)
    if as_latex:
        shown = rounds.filter(regex="^(round|learning_rate|updates|quarantined|metrics\\..*)$")
        shown.columns = shown.columns.str.removeprefix("metrics.").str.replace("_", " ")
        text = shown.to_latex(index=False, float_format="%.4g", na_rep="", escape=True)
        (folder / "rounds.tex").write_text(text)
    typer.echo(folder)
