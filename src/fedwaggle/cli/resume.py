"""``waggle run --resume``: a resumed run keeps the config that it was started with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fedwaggle.errors import ConfigError

if TYPE_CHECKING:
    from fedwaggle.engine.app import App

__all__ = ["refuse_apps_that_cannot", "resumed_app"]

_NEVER_KEPT = {"resume", "fork", "outputs"}  # they say where a run is, not what it is


def resumed_app(
    app: Path, overrides: Mapping[str, Any], outputs: Path, which: str | None, *, fork: bool
) -> tuple[App, int | None]:
    """Return an app whose config makes it resume a run, and the nodes of that run.

    What the run was asked when it began counts before the app's own config, unless it is forked,
    and what is set now counts before both.

    Parameters
    ----------
    app : Path
        The app's folder.
    overrides : Mapping[str, Any]
        What is set now.
    outputs : Path
        The folder of runs.
    which : str | None
        The run: ``"latest"``, its name or its path.
    fork : bool
        Whether to begin a new run where that one is.

    Raises
    ------
    ConfigError, RunError
        If no run was named, if the app cannot resume, or if there is no such run.
    """
    from fedwaggle.engine import read_app
    from fedwaggle.engine.app import read_defaults
    from fedwaggle.runs.listing import find_run
    from fedwaggle.runs.opening import nodes_of
    from fedwaggle.runs.request import read_request

    asked = read_app(app, overrides)
    known = read_defaults(app)
    if which is None:
        raise ConfigError(["--fork: expected --resume RUN beside it, to say where to begin"])
    refuse_apps_that_cannot(known, fork=fork)
    path = find_run(which, outputs).absolute()
    resuming = {**overrides, "resume": str(path)} | ({"fork": True} if fork else {})
    if fork:
        return read_app(app, resuming), nodes_of(path)
    before = {
        key: value
        for key, value in read_request(path).config.items()
        if key in known and key not in _NEVER_KEPT
    }
    kept = read_app(app, {**before, **resuming})
    for key in before:
        if kept.config[key] != asked.config.get(key, known[key]):
            typer.echo(
                f"{key} = {kept.config[key]!r}, as the run was asked; --set {key}=VALUE changes it",
                err=True,
            )
    return kept, nodes_of(path)


def refuse_apps_that_cannot(config: Mapping[str, object], *, fork: bool) -> None:
    """Raise ``ConfigError`` if an app's config has no key by which it resumes, or forks."""
    mistakes = [
        f"--{key}: expected the app to have the key {key} in [tool.flwr.app.config]; "
        "`waggle new` makes an app that shows how it is used"
        for key in ["resume", *(["fork"] if fork else [])]
        if key not in config
    ]
    if mistakes:
        raise ConfigError(mistakes)
