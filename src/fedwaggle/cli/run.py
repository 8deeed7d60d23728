"""``waggle run``: run a Flower app, on the local engine or on stock Flower."""

from __future__ import annotations

import os
import re
import tomllib
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fedwaggle.cli.base import FAILED, outputs_here, show_tracebacks
from fedwaggle.cli.federation import run_on_federation
from fedwaggle.cli.resume import resumed_app
from fedwaggle.errors import ConfigError, WaggleError

if TYPE_CHECKING:
    from fedwaggle.engine.app import ConfigValue
    from fedwaggle.engine.options import EngineOptions

__all__ = ["parse_run_config", "parse_settings", "run"]

_NODES = 10
_CONFIG, _SIMULATION = "Run config", "Simulation"  # panels of the options
_RESUME, _OUTPUT = "Resume", "Output"
_PAIR = re.compile(r"""\S+?=(?:'[^']*'|"[^"]*"|\S+)""")  # what `flwr run` takes for one pair


def run(
    ctx: typer.Context,
    app: Annotated[
        Path, typer.Argument(help="Folder of a Flower app, with its pyproject.toml.")
    ] = Path(),
    connection: Annotated[
        str | None,
        typer.Argument(
            help="With --engine superlink: the SuperLink, by its name in Flower's config.toml."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set a key of the app's config; repeat.",
            rich_help_panel=_CONFIG,
        ),
    ] = None,
    run_config: Annotated[
        list[str] | None,
        typer.Option(
            "--run-config",
            "-c",
            metavar="PAIRS|FILE",
            help="The same, as `flwr run` takes it: 'KEY=VALUE ...', or a .toml file. "
            "Where both set a key, --set counts.",
            rich_help_panel=_CONFIG,
        ),
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Simulated nodes; left out, as many as the run that is resumed has, or the app's "
            "own num-supernodes, or 10.",
            rich_help_panel=_SIMULATION,
        ),
    ] = None,
    node_config: Annotated[
        list[str] | None,
        typer.Option(
            "--node-config",
            metavar="PAIRS",
            help="'KEY=VALUE ...' for the node config of every node (local engine).",
            rich_help_panel=_SIMULATION,
        ),
    ] = None,
    federation_config: Annotated[
        list[str] | None,
        typer.Option(
            "--federation-config",
            metavar="PAIRS",
            help="Nodes and resources as `flwr run` takes them: 'num-supernodes=20 "
            "client-resources-num-cpus=2'. --nodes, --workers and --gpus count before it.",
            rich_help_panel=_SIMULATION,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Make random numbers repeatable that the app itself does not seed (local "
            "engine). The key `seed` of the app's config is another one.",
            rich_help_panel=_SIMULATION,
        ),
    ] = None,
    pin_cpu: Annotated[
        bool,
        typer.Option(
            "--pin-cpu",
            help="Compute with the instructions that all x86 processors since 2013 have, so that "
            "the model is the same on each; slower on new ones.",
            rich_help_panel=_SIMULATION,
        ),
    ] = False,
    engine: Annotated[
        Literal["local", "flower", "superlink"],
        typer.Option(
            help="local: this library's own. flower: stock `flwr run`, on Ray. superlink: a real "
            "federation, CONNECTION.",
            rich_help_panel=_SIMULATION,
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Clients at a time; one a core if left out. 0 runs them in the server's process, "
            "for a debugger (local engine); a client that crashes ends the run then.",
            rich_help_panel=_SIMULATION,
        ),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            min=0, help="GPUs for the clients to share; 0 hides them.", rich_help_panel=_SIMULATION
        ),
    ] = None,
    clients_per_gpu: Annotated[
        int | None,
        typer.Option(min=1, help="Clients at a time on a GPU: 1.", rich_help_panel=_SIMULATION),
    ] = None,
    pool: Annotated[
        Literal["linux", "processes", "ray"] | None,
        typer.Option(
            help="What runs the clients: linux, the default there; processes, which works "
            "everywhere; or ray, a cluster (local engine).",
            rich_help_panel=_SIMULATION,
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="The cluster of --pool ray; RAY_ADDRESS, or a Ray of its own, if left out.",
            rich_help_panel=_SIMULATION,
        ),
    ] = None,
    client_timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="How long a client may take (local engine).",
            rich_help_panel=_SIMULATION,
        ),
    ] = None,
    isolate: Annotated[
        bool,
        typer.Option(
            "--isolate",
            help="A fresh process for each message (local engine).",
            rich_help_panel=_SIMULATION,
        ),
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Resume a run: latest, its name, a path.",
            rich_help_panel=_RESUME,
        ),
    ] = None,
    fork: Annotated[
        bool,
        typer.Option(
            "--fork",
            help="With --resume: start a new run from that one's last round.",
            rich_help_panel=_RESUME,
        ),
    ] = False,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print the run's events, a JSON object a line (local engine).",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="Show warnings and errors alone.", rich_help_panel=_OUTPUT
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Show Flower's log and all tracebacks, too.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
) -> None:
    """Run a Flower app, and keep its record in ./outputs.

    Exit status: 0 the run ended well, 1 it failed, 2 it was refused, 130 it was stopped.
    """
    from fedwaggle.engine import read_app
    from fedwaggle.engine.app import read_defaults, read_federation
    from fedwaggle.engine.checks import check_both, refuse_mistakes
    from fedwaggle.engine.local.run import run_app
    from fedwaggle.engine.options import DEFAULT_POOL, PINNED_CPU, EngineOptions
    from fedwaggle.engine.resources import federation_options
    from fedwaggle.runs import outputs_root

    if verbose:
        show_tracebacks(ctx)
    if pin_cpu:  # before torch is imported, here and by what is started from here
        os.environ.update(PINNED_CPU)
    defaults = read_defaults(app)
    overrides = parse_run_config(run_config or [], defaults)
    overrides |= parse_settings(settings or [], defaults)
    if engine == "superlink":
        run_on_federation(
            app,
            connection,
            overrides,
            resume=resume,
            fork=fork,
            quiet=quiet,
            verbose=verbose,
            simulation_options={
                "--nodes": nodes,
                "--workers": workers,
                "--gpus": gpus,
                "--clients-per-gpu": clients_per_gpu,
                "--pool": pool,
                "--ray-address": ray_address,
                "--client-timeout": client_timeout,
                "--isolate": isolate,
                "--seed": seed,
                "--node-config": node_config,
                "--federation-config": federation_config,
                "--json": json,
            },
        )
        return
    if connection is not None:
        raise ConfigError(
            [
                f"connection {connection}: expected --engine superlink beside it; add it, or leave "
                "the name out"
            ]
        )
    is_new = resume is None and not fork
    own = read_federation(app) if is_new else {}
    asked_federation = parse_pairs("--federation-config", federation_config or [])
    resources, ignored = federation_options({**own, **asked_federation})
    if ignored:
        typer.echo(f"not respected of the federation config: {', '.join(ignored)}", err=True)
    own_nodes = resources.pop("nodes", None)
    nodes = nodes or own_nodes
    known_nodes = nodes or _NODES if is_new else nodes
    given = {"workers": workers, "gpus": gpus, "clients_per_gpu": clients_per_gpu}
    resources |= {key: value for key, value in given.items() if value is not None}
    options, asked = check_both(
        lambda: EngineOptions(
            nodes=known_nodes or _NODES,
            client_timeout=client_timeout,
            isolate=isolate,
            seed=seed,
            node_config=parse_pairs("--node-config", node_config or []),
            quiet=quiet,
            verbose=verbose,
            events=json,
            pool=pool or DEFAULT_POOL,
            ray_address=ray_address,
            **resources,
        ),
        lambda: read_app(app, overrides, nodes=known_nodes),
    )
    os.environ.setdefault("WAGGLE_OUTPUTS", str(outputs_here()))
    outputs = outputs_root(str(asked.config.get("outputs", "")))
    if not is_new:
        asked, recorded = resumed_app(app, overrides, outputs, resume, fork=fork)
        nodes = nodes or recorded
        refuse_mistakes(asked.path, asked.serverapp, asked.config, nodes or _NODES)
    options = replace(options, nodes=nodes or _NODES)
    if engine == "local":
        with _app_errors_shown(asked.path, in_full=verbose):
            run_app(asked, options)
        return
    _refuse_local_options(options)
    from fedwaggle.engine.flower import run as flower

    flower.run(
        asked.path,
        outputs=outputs,
        config=asked.config,
        options=options,
        notify=lambda line: typer.echo(line, err=True),
    )


def parse_run_config(lines: Sequence[str], defaults: Mapping[str, ConfigValue]) -> dict[str, Any]:
    """Read ``--run-config`` as Flower does; but what it would pass over is a mistake here.

    Parameters
    ----------
    lines : Sequence[str]
        What stood after each ``--run-config``: pairs with spaces between, or, as the only one,
        the path of a TOML file.
    defaults : Mapping[str, ConfigValue]
        The app's config, as for :func:`parse_settings`.

    Returns
    -------
    dict[str, Any]
        The settings; those of a file may be nested in tables.

    Raises
    ------
    ConfigError
        If a part of a line is no pair, or the file cannot be read.

    Examples
    --------
    >>> parse_run_config(["lr=0.1 note='a b'", "rounds=3"], {"note": ""})
    {'lr': 0.1, 'note': 'a b', 'rounds': 3}
    """
    files = [line for line in lines if _is_file(line)]
    if files and len(lines) == 1:
        return _read_toml(Path(files[0]).expanduser())
    if files:
        raise ConfigError(
            [
                f"--run-config {name}: expected a TOML file to be the only --run-config; "
                "write what else you set as --set KEY=VALUE"
                for name in files
            ]
        )
    return parse_pairs("--run-config", lines, defaults, "the path of a .toml file")


def parse_pairs(
    option: str,
    lines: Sequence[str],
    defaults: Mapping[str, ConfigValue] | None = None,
    alternative: str = "",
) -> dict[str, ConfigValue]:
    """Read ``'KEY=VALUE KEY=VALUE'`` as ``flwr run`` takes it.

    Parameters
    ----------
    option : str
        The option that the lines stood after, for errors.
    lines : Sequence[str]
        The lines.
    defaults : Mapping[str, ConfigValue] | None
        As for :func:`parse_settings`.
    alternative : str
        What else a line could be, for errors.

    Raises
    ------
    ConfigError
        If a part of a line is no pair.

    Examples
    --------
    >>> parse_pairs("--node-config", ["data-path=/data site='north'"])
    {'data-path': '/data', 'site': 'north'}
    """
    mistakes = [
        f"{option} {rest}: expected KEY=VALUE pairs without spaces around ="
        f"{', or ' if alternative else ''}{alternative}; write \"lr=0.5 note='two words'\", for "
        "example"
        for line in lines
        if (rest := " ".join(_PAIR.sub(" ", line).split()))
    ]
    if mistakes:
        raise ConfigError(mistakes)
    pairs = [pair for line in lines for pair in _PAIR.findall(line)]
    return parse_settings(pairs, defaults or {})


def _is_file(line: str) -> bool:
    """Whether it is a path, and not the pair ``key=name.toml``."""
    return line.endswith(".toml") and ("=" not in line or Path(line).expanduser().is_file())


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            [f"--run-config {path}: expected a TOML file with keys of the app, but {reason}"]
        ) from error


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


def _refuse_local_options(options: EngineOptions) -> None:
    """Refuse what stock Flower cannot do, rather than ignore it."""
    given = {
        "--client-timeout": options.client_timeout is not None,
        "--isolate": options.isolate,
        "--seed": options.seed is not None,
        "--node-config": bool(options.node_config),
        "--workers 0": options.workers == 0,
        "--json": options.events,
    }
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
