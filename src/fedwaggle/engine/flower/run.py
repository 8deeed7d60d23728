"""Run an app on stock Flower: ``flwr run``, with its traps closed.

A plain ``flwr run`` starts a SuperLink in the background that serves every later run too, from
the folder where the first one was started; it ends with 0 as soon as a run is submitted, and
what it started outlives it. Here a run has a home, a SuperLink and a port of its own; its log
is shown as it comes; its end is asked for, and told by an exception; and nothing stays behind,
also after Ctrl-C. The app is the same, and so is Flower.
"""

from __future__ import annotations

import shutil
import signal
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import tomli_w

from fedwaggle.engine.flower.home import Home, make_folder, prepare_home
from fedwaggle.engine.flower.superlink import SuperLink
from fedwaggle.engine.options import EngineOptions
from fedwaggle.engine.surroundings import exit_on
from fedwaggle.errors import ConfigError, EngineError
from fedwaggle.text import printable

__all__ = ["run"]

ConfigValue = bool | int | float | str

_LOG_TAIL_LINES = 30
_LEAVE_OUT = shutil.ignore_patterns("outputs", "wandb", "__pycache__", ".*")


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
    overrides = home.path / "run-config.toml"
    overrides.write_bytes(tomli_w.dumps(dict(config)).encode())
    app = _as_flower_takes_it(app, config, home.path / "app" / app.name)
    run_id = link.submit(app, options.federation(), overrides)
    if options.quiet:
        with (home.path / "run.log").open("w+", encoding="utf-8", errors="replace") as log:
            status = link.follow(run_id, log)
            log.seek(0)
            tail = log.read().splitlines()[-_LOG_TAIL_LINES:]
    else:
        status, tail = link.follow(run_id, None), []
    if status.status != "finished:completed":
        reason = printable(status.details, limit=2000)
        raise EngineError("\n".join([*tail, f"run {run_id} is {status.status}: {reason}"]))


def _as_flower_takes_it(app: Path, config: Mapping[str, ConfigValue], copy: Path) -> Path:
    """Return an app's folder, or a copy of it where ``flwr run`` would refuse or change it.

    ``flwr run`` takes only those keys of a run config that the app's pyproject.toml has. And a
    section ``[tool.flwr.federations]`` makes it rewrite the user's file and the user's default.
    """
    path = app / "pyproject.toml"
    try:
        pyproject = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path}: expected the pyproject.toml of an app ({error})"]) from error
    flower = pyproject.get("tool", {}).get("flwr", {})
    defaults = flower.get("app", {}).get("config", {})
    # A key with a point is one of a nested table, and those must be in the file anyway.
    added = {key: value for key, value in config.items() if "." not in key and key not in defaults}
    if not added and "federations" not in flower:
        return app
    shutil.copytree(app, copy, ignore=_LEAVE_OUT)
    flower.pop("federations", None)
    flower["app"] = {**flower.get("app", {}), "config": {**added, **defaults}}
    (copy / "pyproject.toml").write_bytes(tomli_w.dumps(pyproject).encode())
    return copy


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
