"""What all commands share: the command line itself, how errors look, and where runs are."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from click import Context, Parameter
from rich.console import Console
from rich.text import Text
from typer.core import TyperArgument, TyperCommand, TyperGroup

from fedwaggle.errors import ConfigError, DiskError, EngineError, NodesError, WaggleError

__all__ = ["FAILED", "Command", "app", "outputs_here", "show_tracebacks"]

FAILED, REFUSED, INTERRUPTED = 1, 2, 130  # exit statuses: a run failed, a request was wrong, Ctrl-C

_FAILURES = (DiskError, EngineError, NodesError)

_TRACEBACKS = "fedwaggle.tracebacks"  # key in click's per-call storage


class _Commands(TyperGroup):
    """The commands, with one way to fail: a message on stderr and an exit status."""

    def invoke(self, ctx: Context) -> object:
        """Run a command; what this library raises on purpose becomes a message."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except WaggleError as error:
            if ctx.meta.get(_TRACEBACKS):
                raise
            _print_error(error)
            ctx.exit(FAILED if isinstance(error, _FAILURES) else REFUSED)


class Command(TyperCommand):
    """A command whose arguments have their help: typer 0.20 loses it with click 8.5."""

    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401  # typer's own
        callback: Callable[..., Any],
        params: list[Parameter],
        **settings: Any,  # noqa: ANN401
    ) -> None:
        hints = get_type_hints(callback, include_extras=True)
        for parameter in params:
            if isinstance(parameter, TyperArgument) and parameter.help is None:
                (info,) = hints[str(parameter.name)].__metadata__
                parameter.help = info.help
        super().__init__(*arguments, callback=callback, params=params, **settings)


app = typer.Typer(
    name="waggle",
    cls=_Commands,
    help="Federated learning in which clients tell the server more than weights.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,  # an app's own error is shown as Python shows it
)


def show_tracebacks(ctx: typer.Context) -> None:
    """From here on, show errors of this library with their traceback."""
    ctx.meta[_TRACEBACKS] = True


def outputs_here() -> Path:
    """Return the folder of runs for a person in this folder: ``WAGGLE_OUTPUTS``, or ``outputs``."""
    return Path(os.environ.get("WAGGLE_OUTPUTS") or "outputs").absolute()


def _print_error(error: WaggleError) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    mistakes = error.mistakes if isinstance(error, ConfigError) else [str(error)]
    for mistake in mistakes:
        console.print(Text.assemble(("error: ", "bold red"), mistake))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"waggle {version('fedwaggle')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Take the options that stand before a command."""
