"""Run an app on a SuperLink that is there already: submit, follow, and say truly how it ended."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
import tomllib
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fedwaggle.engine.flower.commands import COMPLETED, LOOK_SECONDS, FlowerCommands, RunStatus
from fedwaggle.engine.flower.home import quiet_environment
from fedwaggle.engine.flower.submission import (
    LOG_TAIL_LINES,
    ConfigValue,
    prepare_app,
    refuse_failure,
)
from fedwaggle.engine.surroundings import exit_on
from fedwaggle.errors import ConfigError, EngineError

__all__ = ["check_connection", "run"]

PATIENCE_SECONDS = 120.0

_ROUND = re.compile(r"\bround +(?P<number>\d+)/(?P<of>\d+)")
_FOLDER = re.compile(r"run folder: (?P<path>\S.*)")
_INFO = re.compile(r"^INFO :\s*")
_FLOWERS_OWN = re.compile(
    r"(INFO|DEBUG) :\s*(configure_|aggregate_|Start `|Starting |$)|Using SuperLink|Successfully "
)


def check_connection(name: str | None, environment: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the name of a connection; nothing if Flower knows it.

    Parameters
    ----------
    name : str | None
        What was asked for.
    environment : Mapping[str, str]
        Where ``FLWR_HOME`` may say where Flower's ``config.toml`` lies.
    """
    home = Path(environment.get("FLWR_HOME") or Path.home() / ".flwr")
    try:
        table = tomllib.loads((home / "config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        table = {}
    known = {key: value for key, value in table.get("superlink", {}).items() if key != "default"}
    if name is None or name not in known:
        names = ", ".join(sorted(known)) or "none"
        return [
            f"connection: expected the name of a SuperLink in {home / 'config.toml'} ({names}), "
            f"got {name or 'none'}; write waggle run APP --engine superlink NAME"
        ]
    if str(known[name].get("address", "")).startswith(":"):
        return [
            f"connection {name}: expected the address of a SuperLink, got Flower's own simulation; "
            "use --engine flower for that"
        ]
    return []


def run(
    app: Path,
    connection: str,
    *,
    config: Mapping[str, ConfigValue],
    quiet: bool = False,
    verbose: bool = False,
    notify: Callable[[str], None] = print,
) -> None:
    """Run an app on a SuperLink, and return when it has run well.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP stop the run. Call it from the main thread.

    Parameters
    ----------
    app : Path
        The app's folder.
    connection : str
        Name of the SuperLink in Flower's ``config.toml``.
    config : Mapping[str, ConfigValue]
        The run config. Keys that the app's pyproject.toml lacks are added to a copy of the app.
    quiet : bool (default: False)
        Whether to keep the log from the standard output; a failure still shows its end.
    verbose : bool (default: False)
        Whether to show Flower's own lines of the log, too.
    notify : Callable[[str], None]
        Takes what a person should know, one line at a time.

    Raises
    ------
    ConfigError
        If Flower knows no such SuperLink, or the app's pyproject.toml cannot be read.
    EngineError
        If Flower refuses the app, if the SuperLink is lost, or if the run does not end well.
    """
    if mistakes := check_connection(connection, os.environ):
        raise ConfigError(mistakes)
    with tempfile.TemporaryDirectory(prefix="waggle-") as made:
        folder = Path(made)
        overrides, submitted = prepare_app(app.resolve(), config, folder)
        commands = FlowerCommands(
            connection, environment=quiet_environment(os.environ), folder=folder
        )
        run_id = commands.submit(submitted, overrides, {})
        notify(f"run {run_id} on {connection}; Ctrl-C stops it")
        follower = _Follower(commands, run_id, quiet=quiet, verbose=verbose)
        with exit_on(signal.SIGTERM, signal.SIGHUP):
            try:
                status = follower.follow()
            except (KeyboardInterrupt, SystemExit):
                notify(f"Stopping run {run_id}.")
                commands.stop(run_id)
                raise
    if status.status != COMPLETED:
        notify(f"resume it with: waggle run {app} --engine superlink {connection} --resume latest")
    refuse_failure(status, follower.tail if quiet else ())
    notify(follower.where)


def without_flowers_own(line: str) -> str:
    """Return a line of a run's log as a person wants it; empty for one of Flower's own steps.

    Examples
    --------
    >>> without_flowers_own("INFO :      round   1/2*  accuracy 10.00 %")
    'round   1/2*  accuracy 10.00 %'
    >>> without_flowers_own("INFO :      configure_train: Sampled 2 nodes (out of 3)")
    ''
    """
    return "" if _FLOWERS_OWN.match(line) else _INFO.sub("", line)


class _Follower:
    """Shows a run while it goes on, across a connection that breaks."""

    def __init__(
        self,
        commands: FlowerCommands,
        run_id: str,
        *,
        quiet: bool,
        verbose: bool,
    ) -> None:
        self._commands, self._run_id = commands, run_id
        self._quiet, self._verbose = quiet, verbose
        self._progress = Progress(
            TextColumn("rounds"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            transient=True,
        )
        self._bar = self._progress.add_task("rounds", total=None)
        self._lines_seen = 0
        self._folder = ""
        self.tail: deque[str] = deque(maxlen=LOG_TAIL_LINES)

    @property
    def where(self) -> str:
        """Where the outputs are, in words."""
        if not self._folder:
            return "the run ended; its log does not name its folder"
        if Path(self._folder).is_dir():
            return f"outputs: {self._folder}; waggle report {self._folder} draws them"
        return f"outputs, on the server: {self._folder}; rsync -a SERVER:{self._folder} outputs/"

    def follow(self) -> RunStatus:
        """Show the log until the run is over; return how it ended."""
        is_live = self._progress.console.is_terminal and not self._quiet
        with self._progress if is_live else nullcontext():
            while True:
                self._show_log()
                status = self._ask_status()
                if status.finished:
                    return status
                time.sleep(LOOK_SECONDS)

    def _show_log(self) -> None:
        """Show what is new of the log, which starts at its first line each time."""
        for number, line in enumerate(self._commands.log_lines(self._run_id)):
            if number < self._lines_seen:
                continue
            self._lines_seen = number + 1
            self.tail.append(line)
            self._read(line)
            shown = line if self._verbose else without_flowers_own(line)
            if shown and not self._quiet:
                self._progress.console.print(shown, markup=False, highlight=False, soft_wrap=True)

    def _read(self, line: str) -> None:
        """Learn from a line of the log how far the run is, and where its outputs are."""
        if found := _ROUND.search(line):
            self._progress.update(self._bar, completed=int(found["number"]), total=int(found["of"]))
        if found := _FOLDER.search(line):
            self._folder = found["path"].strip()

    def _ask_status(self) -> RunStatus:
        """Return what the SuperLink reports of the run; wait for one that does not answer."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        warned = False
        while True:
            try:
                return self._commands.status(self._run_id)
            except EngineError as error:
                if time.monotonic() >= deadline:
                    raise EngineError(
                        f"the SuperLink has not answered for {PATIENCE_SECONDS:.0f} s, so how run "
                        f"{self._run_id} ended is not known; when it answers, ask flwr list "
                        f"({error})"
                    ) from error
                if not warned:  # on the console of the bar, which a line from elsewhere would break
                    self._progress.console.print("the SuperLink does not answer; trying again ...")
                    warned = True
                time.sleep(LOOK_SECONDS)
