"""What a run shows of itself on a terminal: a bar at the bottom, and all else above it."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

from fedwaggle.engine.screen.progress import Progress, Shown
from fedwaggle.runs.listing.table import duration

if TYPE_CHECKING:
    from flwr.app import Message
    from rich.console import RenderableType
    from rich.progress import Progress as RichProgress

__all__ = ["BarProgress", "bars_on_terminal", "is_terminal"]

_REFRESHES_A_SECOND = 4


class BarProgress(Progress):
    """Draws a bar: the rounds, with the share of this one's clients that are done.

    Parameters
    ----------
    bars : RichProgress
        What draws it, started.
    shown : Shown
        What is known of the run.
    """

    def __init__(self, bars: RichProgress, shown: Shown) -> None:
        super().__init__(shown)
        self._bars = bars
        self._task = bars.add_task("starting: importing torch and the app", total=None, clients="")
        self._streams: dict[logging.StreamHandler[Any], Any] = {}

    def attach_logs(self) -> None:
        """Let Flower's log lines appear above the bar."""
        super().attach_logs()
        self._bars.update(self._task, description="starting: waiting for the first clients")
        for handler in logging.getLogger("flwr").handlers:
            if isinstance(handler, logging.StreamHandler):
                self._streams[handler] = handler.setStream(sys.stderr)

    def show(self, what: RenderableType) -> None:
        """Show something of the run above the bar."""
        self._bars.console.print(what, highlight=False)

    def pushed(self, message: Message) -> None:
        """Count a message."""
        super().pushed(message)
        self._update(message)

    def replied(self, message: Message, reply: Message) -> None:
        """Count an answer."""
        super().replied(message, reply)
        self._update(message)

    def round_ended(self) -> None:
        """Nothing to say: the bar has shown it."""

    def close(self) -> None:
        """Take the bar away, show the end, and give Flower's log its stream back."""
        if self._run is not None:
            self._bars.update(self._task, visible=False)
        else:
            self._bars.update(self._task, completed=self.tally.number)
        self._bars.stop()
        super().close()
        for handler, stream in self._streams.items():
            if stream is not None:
                handler.setStream(stream)

    def _update(self, message: Message) -> None:
        """Tell the bar how far the run is; it draws itself, a few times a second."""
        kind = message.metadata.message_type.partition(".")[0]
        sent, done = self.tally.sent.get(kind, 0), self.tally.done.get(kind, 0)
        of = f"/{self.shown.num_rounds}" if self.shown.num_rounds else ""
        # Training is most of a round; what comes after it does not move the bar back.
        trained = self.tally.done.get("train", 0) / max(1, self.tally.sent.get("train", 0))
        metric = self.tally.clients_metric if self._run is None else ""
        self._bars.update(
            self._task,
            description=f"round {self.tally.number}{of}",
            total=self.shown.num_rounds,
            completed=max(0.0, self.tally.number - 1 + trained),
            clients=f"{kind} {done}/{sent} {metric}",
        )


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


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal; there is none if it was closed at the start."""
    return stream is not None and stream.isatty()


def bars_on_terminal() -> RichProgress:
    """Return what draws bars on the terminal that standard error is."""
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class TimeLeft(ProgressColumn):
        """The remaining time of a task, if it is known."""

        max_refresh = 0.5

        def render(self, task: Task) -> Text:
            left = task.time_remaining
            return Text(f"{duration(left)} left" if left is not None and left > 0 else "")

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[clients]}"),
        TimeElapsedColumn(),
        TimeLeft(),
        console=Console(file=cast("TextIO", _Terminal(sys.stderr))),
        refresh_per_second=_REFRESHES_A_SECOND,
        redirect_stdout=is_terminal(sys.stdout),  # else it goes to its file or program
    )
