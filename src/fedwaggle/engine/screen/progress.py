"""What a run shows of itself: lines that follow one another, in a file or a pipe.

It goes to standard error, with Flower's log; what clients print goes where they printed it. An app
that keeps a record is shown as a table of its rounds; of another app, each round is a line.
"""

from __future__ import annotations

import io
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from fedwaggle.engine.screen.log_gate import LogGate
from fedwaggle.engine.screen.tally import RoundTally, round_of
from fedwaggle.engine.screen.tracebacks import SeenTracebacks, unpacked

if TYPE_CHECKING:
    from flwr.app import Message
    from rich.console import RenderableType

    from fedwaggle.grids import RecordedRun
    from fedwaggle.runs.events import Event

__all__ = ["EventProgress", "Progress", "QuietProgress", "Shown"]

_LINE_WIDTH = 100  # columns of a box, where there is no terminal


@dataclass(frozen=True)
class Shown:
    """What is known of a run before it begins.

    Attributes
    ----------
    num_rounds : int | None
        How many rounds there will be, if that is known.
    about : tuple[str, ...]
        What the run's record does not know, such as ``"2 workers"``.
    app : str
        The app's folder, as a command names it; empty if it has none.
    verbose : bool
        Whether to show Flower's log, and what happens to workers.
    """

    num_rounds: int | None = None
    about: tuple[str, ...] = ()
    app: str = ""
    verbose: bool = False


class Progress:
    """Follows a run, line by line.

    Parameters
    ----------
    shown : Shown
        What is known of it.
    """

    def __init__(self, shown: Shown) -> None:
        self.shown = shown
        self.tally = RoundTally()
        self.logger = logging.getLogger("flwr.fedwaggle.engine")
        self._tracebacks = SeenTracebacks()
        self._gate = LogGate()
        self._run: RecordedRun | None = None

    def attach_logs(self) -> None:
        """Prepare Flower's log, which exists from now on."""
        if self.shown.verbose:
            logging.getLogger("flwr.fedwaggle").setLevel(logging.DEBUG)
        else:
            self._gate.attach(logging.getLogger("flwr"))

    def run_recorded(self, run: RecordedRun) -> None:
        """Show the run by its record from now on, and not by its log."""
        from fedwaggle.runs.terminal.rounds import RoundTable

        self._run = run
        self._gate.shut()
        table = RoundTable(self.shown.about)

        def show(event: Event) -> None:
            for line in table.add(event):
                self.show(line)

        run.listen(show)

    def show(self, what: RenderableType) -> None:
        """Show something of the run itself."""
        from rich.console import Console

        text = io.StringIO()
        Console(file=text, width=_LINE_WIDTH, color_system=None).print(what, soft_wrap=True)
        self._print(text.getvalue().rstrip("\n"), is_error=True)

    def client_line(self, line: str, is_error: bool) -> None:
        """Print a line of a client; of tracebacks that are alike, only the first."""
        trace = unpacked(line) if is_error else None
        if trace is None:
            self._print(line, is_error)
        elif self._tracebacks.is_new(trace) or self.shown.verbose:
            for each in trace:
                self._print(each, is_error)

    def report_repeats(self) -> None:
        """Say how many tracebacks were not shown."""
        count = self._tracebacks.repeats
        if count and not self.shown.verbose:
            self.logger.warning("tracebacks like those above, not shown: %d; -v shows all", count)

    def report(self, line: str) -> None:
        """Say what happened to a worker."""
        if self.shown.verbose:
            self.logger.info(line)

    def pushed(self, message: Message) -> None:
        """Count a message."""
        if self._run is None:
            self._gate.open()
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
        """Log how the last round went, unless the run is shown by its record."""
        if self.tally.sent and self._run is None:
            self.logger.info(self.tally.line(self.shown.num_rounds, time.monotonic()))

    def close(self) -> None:
        """Say how the run ended."""
        self.round_ended()
        self.show_summary()
        self._gate.detach()

    def show_summary(self) -> None:
        """Show what came of a run that kept a record, and what to do next."""
        if self._run is None:
            return
        from rich.text import Text

        from fedwaggle.runs.listing import record_in_short
        from fedwaggle.runs.terminal.summary import next_command, summary

        record = record_in_short(self._run.path)
        if record is None:
            return
        self.show(summary(record, Path.cwd()))
        if command := next_command(record, self.shown.app):
            self.show(Text(f"\n  {command}\n", style="bold"))

    def _print(self, line: str, is_error: bool) -> None:
        stream = sys.stderr if is_error else sys.stdout
        text = f"{line}\n"  # in one piece: other lines are written meanwhile
        try:
            stream.write(text)
        except UnicodeEncodeError:
            stream.write(text.encode(stream.encoding, "replace").decode(stream.encoding))
        stream.flush()


class QuietProgress(Progress):
    """Says nothing, and keeps Flower's log to warnings."""

    def attach_logs(self) -> None:
        """Let warnings and errors through, and nothing below."""
        self._gate.shut()
        self._gate.attach(logging.getLogger("flwr"))

    def run_recorded(self, run: RecordedRun) -> None:
        """Look away."""

    def pushed(self, message: Message) -> None:
        """Look away."""

    def replied(self, message: Message, reply: Message) -> None:
        """Look away."""


class EventProgress(QuietProgress):
    """Prints the events of the run's record, one JSON object a line.

    Parameters
    ----------
    shown : Shown
        What is known of the run.
    stream : TextIO
        Where to; what clients print goes to standard error.
    """

    def __init__(self, shown: Shown, stream: TextIO) -> None:
        super().__init__(shown)
        self._stream = stream
        self._has_events = False

    def run_recorded(self, run: RecordedRun) -> None:
        """Print what is recorded from now on."""
        from fedwaggle.runs.events import to_line

        def show(event: Event) -> None:
            self._stream.write(f"{to_line(event)}\n")
            self._stream.flush()

        self._has_events = True
        run.listen(show)

    def close(self) -> None:
        """Say why nothing was printed, if nothing was."""
        if not self._has_events:
            self.logger.warning(
                "--json: expected an app whose strategy keeps a record (Waggle, with run=...); "
                "this one keeps none, so there are no events"
            )
        super().close()

    def client_line(self, line: str, is_error: bool) -> None:
        """Print a line of a client to standard error, where it is not taken for an event."""
        super().client_line(line, is_error=True)
