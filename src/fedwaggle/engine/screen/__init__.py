"""What a run shows of itself, in the way that fits where its output goes.

A bar and a table on a terminal, the table alone in a file or a pipe, one line in a notebook, events
as JSON for a program, or nothing.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from fedwaggle.engine.screen.bars import BarProgress, bars_on_terminal, is_terminal
from fedwaggle.engine.screen.notebook import NotebookProgress, is_notebook
from fedwaggle.engine.screen.progress import EventProgress, Progress, QuietProgress, Shown

if TYPE_CHECKING:
    from fedwaggle.engine.app import App
    from fedwaggle.engine.options import EngineOptions

__all__ = ["Progress", "open_progress"]

_ROUNDS_KEYS = ("num-server-rounds", "num-rounds", "rounds")


@contextmanager
def open_progress(app: App, options: EngineOptions) -> Iterator[Progress]:
    """Follow a run of an app."""
    shown = _shown(app, options)
    with ExitStack() as stack:
        stack.callback(_give_up_closed_terminals)
        if options.events:
            progress: Progress = EventProgress(shown, sys.stdout)
            # What the app prints is not taken for an event.
            stack.enter_context(redirect_stdout(sys.stderr))
        elif options.quiet:
            progress = QuietProgress(shown)
        elif is_notebook():
            progress = NotebookProgress(shown)
        elif is_terminal(sys.stderr):
            progress = BarProgress(stack.enter_context(bars_on_terminal()), shown)
        else:
            progress = Progress(shown)
        stack.callback(progress.close)
        stack.callback(progress.report_repeats)
        yield progress


def _shown(app: App, options: EngineOptions) -> Shown:
    rounds = [app.config[key] for key in _ROUNDS_KEYS if isinstance(app.config.get(key), int)]
    workers = options.num_workers
    return Shown(
        num_rounds=int(rounds[0]) if rounds else None,
        about=(f"{workers} worker{'s' * (workers != 1)}",),
        app=_as_argument(app.path) if (app.path / "pyproject.toml").is_file() else "",
        verbose=options.verbose,
    )


def _as_argument(folder: Path) -> str:
    """Return a folder as a person here would name it."""
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)


def _give_up_closed_terminals() -> None:
    """Drop what Python still holds for a terminal that is gone; it would exit with an error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            if error.errno == errno.EIO:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
