"""What a run shows of itself: bars on a terminal, a line a round elsewhere, or nothing.

It goes to standard error, with Flower's log; what clients print goes where they printed it.
"""

from __future__ import annotations

import errno
import html
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

from fedwaggle.engine.tally import RoundTally, round_of
from fedwaggle.engine.tracebacks import SeenTracebacks, unpacked

if TYPE_CHECKING:
    from flwr.app import Message
    from rich.progress import Progress as RichProgress

__all__ = ["BarProgress", "Progress", "QuietProgress", "open_progress"]

_ROUNDS_KEYS = ("num-server-rounds", "num-rounds", "rounds")
_REFRESH_SECONDS = 0.1


class Progress:
    """Follows a run; this one says a line a round, through Flower's log.

    Parameters
    ----------
    num_rounds : int | None
        How many rounds there will be, if that is known.
    verbose : bool
        Whether to say what happens to workers.
    """

    def __init__(self, num_rounds: int | None, *, verbose: bool) -> None:
        self.num_rounds = num_rounds
        self.verbose = verbose
        self.tally = RoundTally()
        self.logger = logging.getLogger("flwr.fedwaggle.engine")
        self._tracebacks = SeenTracebacks()

    def attach_logs(self) -> None:
        """Prepare Flower's log, which exists from now on."""
        self._let_details_through()

    def _let_details_through(self) -> None:
        if self.verbose:
            logging.getLogger("flwr.fedwaggle").setLevel(logging.DEBUG)

    def client_line(self, line: str, is_error: bool) -> None:
        """Print a line of a client; of tracebacks that are alike, only the first."""
        trace = unpacked(line) if is_error else None
        if trace is None:
            self._print(line, is_error)
        elif self._tracebacks.is_new(trace) or self.verbose:
            for each in trace:
                self._print(each, is_error)

    def report_repeats(self) -> None:
        """Say how many tracebacks were not shown."""
        count = self._tracebacks.repeats
        if count and not self.verbose:
            self.logger.warning("tracebacks like those above, not shown: %d; -v shows all", count)

    def _print(self, line: str, is_error: bool) -> None:
        stream = sys.stderr if is_error else sys.stdout
        text = f"{line}\n"  # in one piece: other lines are written meanwhile
        try:
            stream.write(text)
        except UnicodeEncodeError:
            stream.write(text.encode(stream.encoding, "replace").decode(stream.encoding))
        stream.flush()

    def report(self, line: str) -> None:
        """Say what happened to a worker."""
        if self.verbose:
            self.logger.info(line)

    def pushed(self, message: Message) -> None:
        """Count a message."""
        number = round_of(message.content)
        if number is not None and number != self.tally.number:
            self.round_ended()
            self.tally = RoundTally(number)
        kind = message.metadata.message_type.partition(".")[0]
        self.tally.sent[kind] = self.tally.sent.get(kind, 0) + 1

    def replied(self, message: Message, reply: Message) -> None:
        """Count an answer."""
        kind = message.metadata.message_type.partition(".")[0]
        self.tally.done[kind] = self.tally.done.get(kind, 0) + 1
        if reply.has_error():
            self.tally.errors += 1
        elif kind == "evaluate":
            self.tally.add_evaluation(reply.content)

    def round_ended(self) -> None:
        """Say how the round went that was followed until now."""
        if self.tally.sent:
            self.logger.info(self.tally.line(self.num_rounds, time.monotonic()))

    def close(self) -> None:
        """Say how the last round went."""
        self.round_ended()


class QuietProgress(Progress):
    """Says nothing, and keeps Flower's log to warnings."""

    def __init__(self, *, verbose: bool) -> None:
        super().__init__(None, verbose=verbose)
        self._levels: dict[logging.Handler, int] = {}

    def attach_logs(self) -> None:
        """Let warnings and errors through, and nothing below."""
        for handler in logging.getLogger("flwr").handlers:
            self._levels[handler] = handler.level
            handler.setLevel(max(handler.level, logging.WARNING))

    def pushed(self, message: Message) -> None:
        """Look away."""

    def replied(self, message: Message, reply: Message) -> None:
        """Look away."""

    def close(self) -> None:
        """Give Flower's log its levels back."""
        for handler, level in self._levels.items():
            handler.setLevel(level)


class NotebookProgress(Progress):
    """Shows one line in a notebook, which is updated; and of Flower's log, warnings."""

    def __init__(self, num_rounds: int | None, *, verbose: bool) -> None:
        super().__init__(num_rounds, verbose=verbose)
        from IPython.display import display

        self._log = QuietProgress(verbose=verbose)
        self._shown = display(  # type: ignore[no-untyped-call]
            _as_html("starting"), raw=True, display_id=True
        )
        self._drawn = 0.0

    def attach_logs(self) -> None:
        """Let warnings and errors through, and what else there is if it was asked for."""
        super().attach_logs()
        if not self.verbose:
            self._log.attach_logs()

    def pushed(self, message: Message) -> None:
        """Count a message."""
        super().pushed(message)
        self._draw(at_once=False)

    def replied(self, message: Message, reply: Message) -> None:
        """Count an answer."""
        super().replied(message, reply)
        self._draw(at_once=False)

    def round_ended(self) -> None:
        """Nothing to say: the line has shown it."""

    def close(self) -> None:
        """Show how the last round ended, and give Flower's log its levels back."""
        self._draw(at_once=True)
        self._log.close()

    def _draw(self, *, at_once: bool) -> None:
        now = time.monotonic()
        if not at_once and now - self._drawn < _REFRESH_SECONDS:
            return
        self._drawn = now
        self._shown.update(_as_html(self.tally.line(self.num_rounds, now)), raw=True)


def _as_html(line: str) -> dict[str, str]:
    return {"text/plain": line, "text/html": f"<pre>{html.escape(line)}</pre>"}


def _is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


class BarProgress(Progress):
    """Draws two bars: the rounds, and the clients that are done in this one.

    Parameters
    ----------
    bars : RichProgress
        What draws them, started.
    num_rounds, verbose : int | None, bool
        As above.
    """

    def __init__(self, bars: RichProgress, num_rounds: int | None, *, verbose: bool) -> None:
        super().__init__(num_rounds, verbose=verbose)
        self._bars = bars
        self._rounds = bars.add_task("rounds", total=num_rounds, metric="")
        self._clients = bars.add_task("clients", total=None, metric="")
        self._drawn = 0.0
        self._streams: dict[logging.StreamHandler[Any], Any] = {}

    def attach_logs(self) -> None:
        """Let Flower's log lines appear above the bars."""
        super().attach_logs()
        for handler in logging.getLogger("flwr").handlers:
            if isinstance(handler, logging.StreamHandler):
                self._streams[handler] = handler.setStream(sys.stderr)

    def pushed(self, message: Message) -> None:
        """Count a message."""
        super().pushed(message)
        self._draw(message)

    def replied(self, message: Message, reply: Message) -> None:
        """Count an answer."""
        super().replied(message, reply)
        self._draw(message)

    def round_ended(self) -> None:
        """Nothing to say: the bars have shown it."""

    def close(self) -> None:
        """Draw the end, and give Flower's log its stream back."""
        self._bars.update(self._rounds, completed=self.tally.number, refresh=True)
        for handler, stream in self._streams.items():
            if stream is not None:
                handler.setStream(stream)

    def _draw(self, message: Message) -> None:
        now = time.monotonic()
        if now - self._drawn < _REFRESH_SECONDS:
            return
        self._drawn = now
        kind = message.metadata.message_type.partition(".")[0]
        self._bars.update(self._rounds, completed=max(0, self.tally.number - 1))
        self._bars.update(
            self._clients,
            description=kind,
            total=self.tally.sent.get(kind, 0),
            completed=self.tally.done.get(kind, 0),
            metric=self.tally.clients_metric,
        )
        self._bars.refresh()


@contextmanager
def open_progress(config: Mapping[str, Any], quiet: bool, verbose: bool) -> Iterator[Progress]:
    """Follow a run in the way that fits where its output goes."""
    rounds = [config[key] for key in _ROUNDS_KEYS if isinstance(config.get(key), int)]
    num_rounds = rounds[0] if rounds else None
    with ExitStack() as stack:
        stack.callback(_give_up_closed_terminals)
        if quiet:
            progress: Progress = QuietProgress(verbose=verbose)
        elif _is_notebook():
            progress = NotebookProgress(num_rounds, verbose=verbose)
        elif _is_terminal(sys.stderr):
            progress = BarProgress(stack.enter_context(_bars()), num_rounds, verbose=verbose)
        else:
            progress = Progress(num_rounds, verbose=verbose)
        stack.callback(progress.close)
        stack.callback(progress.report_repeats)
        yield progress


class _Terminal:
    """Standard error on a terminal that may be closed: a run goes on without being seen."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()  # there is none if it was closed at the start


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


def _bars() -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description:8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[metric]}"),
        console=Console(file=cast("TextIO", _Terminal(sys.stderr))),
        auto_refresh=False,  # it is drawn when something happens
        redirect_stdout=_is_terminal(sys.stdout),  # else it goes to its file or program
    )
