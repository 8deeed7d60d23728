"""``waggle run --engine superlink``: the same command on a real federation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from fedwaggle.cli.resume import refuse_apps_that_cannot
from fedwaggle.errors import ConfigError

__all__ = ["run_on_federation"]


def run_on_federation(
    app: Path,
    connection: str | None,
    overrides: Mapping[str, Any],
    *,
    resume: str | None,
    fork: bool,
    quiet: bool,
    verbose: bool,
    simulation_options: Mapping[str, object],
) -> None:
    """Submit an app to a SuperLink and follow it.

    Parameters
    ----------
    app : Path
        The app's folder.
    connection : str | None
        Name of the SuperLink in Flower's ``config.toml``.
    overrides : Mapping[str, Any]
        What is set of the run config.
    resume : str | None
        The run to resume; the server looks for it among its outputs.
    fork : bool
        Whether to begin a new run where that one is.
    quiet : bool
        Whether to show the log only if the run fails.
    verbose : bool
        Whether to show Flower's own lines of it, too.
    simulation_options : Mapping[str, object]
        Options that only a simulation has, by name; each that is given is a mistake.

    Raises
    ------
    ConfigError
        With every mistake that can be seen from here.
    """
    from fedwaggle.engine import read_app
    from fedwaggle.engine.app import read_defaults
    from fedwaggle.engine.flower import federation

    mistakes = federation.check_connection(connection, os.environ)
    mistakes += [
        f"{name}: expected a simulation; a federation has the nodes that are connected to it, so "
        "leave it out"
        for name, value in simulation_options.items()
        if value not in (None, False, [])
    ]
    resuming: dict[str, Any] = {"resume": resume} if resume else {}
    if resume and fork:
        resuming["fork"] = True
    if fork and not resume:
        mistakes.append("--fork: expected --resume RUN beside it, to say where to begin")
    asked = None
    try:
        if resuming:
            refuse_apps_that_cannot(read_defaults(app), fork=fork)
        asked = read_app(app, {**overrides, **resuming})
    except ConfigError as error:
        mistakes += error.mistakes
    if mistakes or asked is None or connection is None:
        raise ConfigError(mistakes)
    federation.run(
        asked.path,
        connection,
        config=asked.config,
        quiet=quiet,
        verbose=verbose,
        notify=lambda line: typer.echo(line, err=True),
    )
