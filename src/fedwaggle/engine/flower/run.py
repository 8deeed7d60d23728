"""Run an app on stock Flower: ``flwr run``, with its traps closed.

A plain ``flwr run`` starts a SuperLink in the background that serves every later run too, from
the folder where the first one was started; it ends with 0 as soon as a run is submitted, and
what it started outlives it. Here a run has a home, a SuperLink and a port of its own; its log
is shown as it comes; its end is asked for, and raised as an exception; and nothing stays behind,
also after Ctrl-C. The app is the same, and so is Flower.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fedwaggle.engine.flower.home import Home, make_folder, prepare_home
from fedwaggle.engine.flower.submission import (
    LOG_TAIL_LINES,
    ConfigValue,
    prepare_app,
    refuse_failure,
)
from fedwaggle.engine.flower.superlink import SuperLink
from fedwaggle.engine.options import EngineOptions
from fedwaggle.engine.surroundings import exit_on

__all__ = ["run"]


def run(
    app: Path,
    *,
    outputs: Path,
    config: Mapping[str, ConfigValue] | None = None,
    options: EngineOptions,
    notify: Callable[[str], None] = print,
) -> None:
    """Run an app on a SuperLink of its own, and return when it has run well.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP stop the run in order, which takes up to about 30 s; a
    second one ends everything at once. Call it from the main thread.

    Parameters
    ----------
    app : Path
        The app's folder.
    outputs : Path
        Absolute folder for the folders of runs: the environment's ``WAGGLE_OUTPUTS`` of the
        app. What an app writes under a relative name is moved there at the end.
    config : Mapping[str, ConfigValue] | None
        The run config. Keys that the app's pyproject.toml lacks are added to a copy of the app.
    options : EngineOptions
        Nodes, cores and GPUs; and whether to keep the log from the standard output (``quiet``): a
        failure still shows its end.
    notify : Callable[[str], None]
        Takes what a person should know, one line at a time.

    Raises
    ------
    ConfigError
        If the app's pyproject.toml cannot be read.
    EngineError
        If Flower refuses the app, or if the run does not end well; with the reason.
    KeyboardInterrupt, SystemExit
        On those signals, when everything has ended.
    """
    app = app.resolve()
    with (
        _private_home(outputs, notify) as home,
        exit_on(signal.SIGTERM, signal.SIGHUP),
        SuperLink(home) as link,
    ):
        try:
            _run_on(link, home, app, config or {}, options)
        except (KeyboardInterrupt, SystemExit):
            notify("Stopping the run, which can take half a minute. Ctrl-C again kills it.")
            raise


def _run_on(
    link: SuperLink,
    home: Home,
    app: Path,
    config: Mapping[str, ConfigValue],
    options: EngineOptions,
) -> None:
    overrides, app = prepare_app(app, config, home.path)
    run_id = link.commands.submit(app, overrides, options.federation())
    if options.quiet:
        with (home.path / "run.log").open("w+", encoding="utf-8", errors="replace") as log:
            status = link.commands.follow(run_id, log)
            log.seek(0)
            tail = log.read().splitlines()[-LOG_TAIL_LINES:]
    else:
        status, tail = link.commands.follow(run_id, None), []
    refuse_failure(status, tail)


@contextmanager
def _private_home(outputs: Path, notify: Callable[[str], None]) -> Iterator[Home]:
    """Make a home for one run; keep what the app wrote into its working folder, drop the rest."""
    path = make_folder()
    try:
        home = prepare_home(path, outputs)
        yield home
    finally:
        _keep_files(path / "work", outputs / f"files-{path.name}", notify)
        shutil.rmtree(path, ignore_errors=True)


def _keep_files(work: Path, kept: Path, notify: Callable[[str], None]) -> None:
    if work.is_dir() and any(work.iterdir()):
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(work, kept)
        notify(f"The app wrote files into its working folder; they are kept in {kept}")
