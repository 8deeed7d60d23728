"""``waggle run``: run a Flower app, on the local engine or on stock Flower."""

from __future__ import annotations

import os
import re
import tomllib
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fedwaggle.cli.base import FAILED, outputs_here, show_tracebacks
from fedwaggle.errors import ConfigError, WaggleError

if TYPE_CHECKING:
    from fedwaggle.engine.app import ConfigValue

__all__ = ["parse_settings", "run"]

_PAIR = re.compile(r"""\S+?=(?:'[^']*'|"[^"]*"|\S+)""")  # what `flwr run` takes for one pair


def run(
    ctx: typer.Context,
    app: Annotated[Path, typer.Argument(help="Folder of a Flower app.")] = Path(),
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the app's config; repeat."),
    ] = None,
    run_config: Annotated[
        list[str] | None,
        typer.Option(
            "--run-config",
            "-c",
            metavar="'KEY=VALUE ...'",
            help="The same, as `flwr run` takes it.",
        ),
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Simulated nodes.")] = 10,
    engine: Annotated[
        Literal["local", "flower"],
        typer.Option(help="local: this library's own. flower: stock `flwr run`, on Ray."),
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Clients at a time; one a core if left out.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="GPUs for the clients to share; 0 hides them.")
    ] = None,
    clients_per_gpu: Annotated[int, typer.Option(min=1, help="Clients at a time on a GPU.")] = 1,
    client_timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How long a client may take (local engine)."),
    ] = None,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="A fresh process for each message (local engine).")
    ] = False,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run: latest, its name, a path.")
    ] = None,
    fork: Annotated[
        bool, typer.Option("--fork", help="With --resume: begin a new run where that one is.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say less.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say more; show tracebacks.")
    ] = False,
) -> None:
    """Run a Flower app, and keep its record in ./outputs.

    Exit status: 0 the run ended well, 1 it failed, 2 it was refused, 130 it was stopped.
    """
    from fedwaggle.engine import read_app
    from fedwaggle.engine import run as run_locally
    from fedwaggle.runs import outputs_root

    if verbose:
        show_tracebacks(ctx)
    pairs = [pair for line in run_config or [] for pair in _PAIR.findall(line)]
    overrides = parse_settings([*pairs, *(settings or [])], read_app(app).config)
    asked = read_app(app, overrides)
    os.environ.setdefault("WAGGLE_OUTPUTS", str(outputs_here()))
    outputs = outputs_root(str(asked.config.get("outputs", "")))
    if resume is not None or fork:
        overrides |= _resume_settings(asked.config, outputs, resume, fork=fork)
        asked = read_app(app, overrides)
    if engine == "local":
        with _app_errors_shown(asked.path, in_full=verbose):
            run_locally(
                asked,
                nodes=nodes,
                workers=workers,
                client_timeout=client_timeout,
                gpus=gpus,
                clients_per_gpu=clients_per_gpu,
                isolate=isolate,
                quiet=quiet,
                verbose=verbose,
            )
        return
    _refuse_local_options(client_timeout, isolate=isolate)
    from fedwaggle.engine import flower

    flower.run(
        asked.path,
        outputs=outputs,
        config={key: asked.config[key] for key in overrides},
        resources=flower.FlowerResources(
            nodes=nodes, workers=workers, gpus=gpus or 0, clients_per_gpu=clients_per_gpu
        ),
        quiet=quiet,
        notify=lambda line: typer.echo(line, err=True),
    )


def parse_settings(
    settings: Sequence[str], defaults: Mapping[str, ConfigValue]
) -> dict[str, ConfigValue]:
    """Read ``key=value`` settings: a value is TOML, or plain text where it is not.

    Parameters
    ----------
    settings : Sequence[str]
        What stood after each ``--set``.
    defaults : Mapping[str, ConfigValue]
        The app's config; where it has text, ``key=2024`` means the text.

    Raises
    ------
    ConfigError
        If a setting has no ``=``. Whether keys and types are the app's is checked with the app.

    Examples
    --------
    >>> parse_settings(["lr=0.1", "run-name=2024", "note='a b'"], {"lr": 1.0, "run-name": ""})
    {'lr': 0.1, 'run-name': '2024', 'note': 'a b'}
    """
    pairs = [setting.partition("=") for setting in settings]
    mistakes = [
        f"--set {key}: expected KEY=VALUE, got no =; write --set {key or 'lr'}=0.1, for example"
        for key, equals, _ in pairs
        if not (key.strip() and equals)
    ]
    if mistakes:
        raise ConfigError(mistakes)
    return {
        key.strip(): _parse_value(text.strip(), defaults.get(key.strip())) for key, _, text in pairs
    }


def _parse_value(text: str, default: ConfigValue | None) -> ConfigValue:
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value: ConfigValue = table["value"]
    # A line break in the text could begin a second key: then it is not one value but text.
    is_other_than_asked = isinstance(default, str) and not isinstance(value, str)
    return text if is_other_than_asked or len(table) > 1 else value


def _resume_settings(
    config: Mapping[str, ConfigValue], outputs: Path, which: str | None, *, fork: bool
) -> dict[str, ConfigValue]:
    """Return the config that makes an app go on with a run."""
    from fedwaggle.runs.listing import find_run

    if which is None:
        raise ConfigError(["--fork: expected --resume RUN beside it, to say where to begin"])
    settings: dict[str, ConfigValue] = {"resume": ""} | ({"fork": True} if fork else {})
    mistakes = [
        f"--{key}: expected the app to have the key {key} in [tool.flwr.app.config]; "
        "`waggle new` makes an app that shows how it is used"
        for key in settings
        if key not in config
    ]
    if mistakes:
        raise ConfigError(mistakes)
    return settings | {"resume": str(find_run(which, outputs).absolute())}


def _refuse_local_options(client_timeout: float | None, *, isolate: bool) -> None:
    """Refuse what stock Flower cannot do, rather than ignore it."""
    given = {"--client-timeout": client_timeout is not None, "--isolate": isolate}
    mistakes = [
        f"{option}: expected --engine local; stock Flower has nothing like it, so leave it out"
        for option, is_given in given.items()
        if is_given
    ]
    if mistakes:
        raise ConfigError(mistakes)


@contextmanager
def _app_errors_shown(folder: Path, *, in_full: bool) -> Iterator[None]:
    """Show what an app raises from the app's own first line on; the way there is ours."""
    try:
        yield
    except WaggleError:
        raise
    except Exception as error:  # an app may raise anything; all of it is shown
        trace = None if in_full else _trace_from(folder, error.__traceback__)
        if trace is None:
            raise
        traceback.print_exception(type(error), error, trace)
        raise typer.Exit(FAILED) from error


def _trace_from(folder: Path, trace: TracebackType | None) -> TracebackType | None:
    while trace and not Path(trace.tb_frame.f_code.co_filename).is_relative_to(folder):
        trace = trace.tb_next
    return trace
