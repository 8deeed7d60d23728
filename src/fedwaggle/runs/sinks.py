"""Sinks: what shows a run elsewhere, kept at arm's length.

No sink can stop, slow, change or corrupt a run. Each has a thread of its own, which opens the
sink, reads each line of the record into its own copy of the event, and hands it over. The run
only ever puts a string into a bounded queue. A sink that fails, hangs or cannot keep up is
dropped with one warning; ``events.jsonl`` stays complete, so nothing is lost by it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from fedwaggle.runs.events import Event, UnknownEvent, parse_line
from fedwaggle.text import printable

__all__ = ["Sink", "SinkThread", "close_all"]

logger = logging.getLogger("flwr.fedwaggle")  # below Flower's, so that its log shows it


class Sink(Protocol):
    """Shows the events of one run somewhere. It may raise and take its time: it is contained."""

    def record(self, event: Event) -> None:
        """Show an event; the copy is the sink's own."""

    def close(self) -> None:
        """Write out what is left."""


class SinkThread:
    """A sink in a thread of its own, behind a bounded queue.

    Parameters
    ----------
    name : str
        The sink's name, for warnings.
    open_sink : Callable[[], Sink]
        Opens the sink; it is called in the thread.
    capacity : int (default: 64 MiB)
        The most that may wait for the sink (characters). A sink that falls further behind is
        dropped.
    open_seconds : float (default: 15.0)
        How long the sink may take to open (s) before it is dropped.

    Examples
    --------
    >>> class Printer:
    ...     def record(self, event):
    ...         print(event.event, event.round)
    ...     def close(self):
    ...         print("closed")
    >>> sink = SinkThread("printer", Printer)
    >>> sink.offer('{"v": 1, "time": "2026-01-02T00:00:00Z", "event": "round-finished",'
    ...            ' "round": 3, "seconds": 1.5}')
    >>> sink.close()
    round-finished 3
    closed
    """

    def __init__(
        self,
        name: str,
        open_sink: Callable[[], Sink],
        *,
        capacity: int = 1 << 26,
        open_seconds: float = 15.0,
    ) -> None:
        self.name = name
        self._open_sink = open_sink
        self._capacity = capacity
        self._open_seconds = open_seconds
        self._open_until = time.monotonic() + open_seconds
        self._opened = self._closing = self._dropped = False
        self._lines: deque[str] = deque()
        self._waiting = 0  # characters in the queue
        self._change = threading.Condition()
        # A daemon: the interpreter does not wait for a sink that hangs.
        self._thread = threading.Thread(target=self._run, name=f"sink-{name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # the system gives no more threads
            self._drop(f"it could not start: {error}")

    def offer(self, line: str) -> None:
        """Hand over a line of the record. Never blocks, never raises.

        Parameters
        ----------
        line : str
            An event, as :func:`~fedwaggle.runs.events.to_line` writes it.
        """
        if self._dropped or self._closing:
            return
        if self._is_late():
            self._drop(f"it did not open within {self._open_seconds:g} s")
            return
        with self._change:
            fits = self._waiting + len(line) <= self._capacity
            if fits:
                self._lines.append(line)
                self._waiting += len(line)
                self._change.notify()
        if not fits:
            self._drop("it does not keep up with the run")

    def finish(self) -> None:
        """Tell the sink that there will be no more lines; does not wait for it."""
        with self._change:
            self._closing = True
            self._change.notify()

    def close(self, timeout: float = 15.0) -> None:
        """Let the sink show what it was offered, and close it; then go on without it.

        Parameters
        ----------
        timeout : float (default: 15.0)
            The longest that this waits (s). A sink that is not done by then is abandoned.
        """
        self.finish()
        if self._dropped:
            return
        until = time.monotonic() + timeout
        while self._thread.is_alive() and not self._is_late() and time.monotonic() < until:
            self._thread.join(min(0.1, max(0.0, until - time.monotonic())))
        if self._thread.is_alive():
            self._drop("it did not finish in time")

    def _is_late(self) -> bool:
        return not self._opened and time.monotonic() > self._open_until

    def _drop(self, reason: str) -> None:
        """Let go of the sink, with one warning however many reasons there are."""
        with self._change:
            is_first = not self._dropped
            self._dropped = True
            self._lines.clear()
            self._waiting = 0
            self._change.notify()
        if is_first:
            logger.warning(
                "Tracker %s is dropped: %s. The run goes on, and its events.jsonl is complete.",
                self.name,
                reason,
            )

    def _run(self) -> None:
        """Live as the thread: open, record until the end, close."""
        sink: Sink | None = None
        try:
            sink = self._open_sink()
            self._opened = True
            while (line := self._next_line()) is not None:
                event = parse_line(line)
                if not isinstance(event, UnknownEvent):
                    sink.record(event)
            done, sink = sink, None
            done.close()
        except BaseException as error:  # noqa: BLE001  # a sink's failure of any kind ends here
            self._drop(f"{type(error).__name__}: {printable(str(error))}")
            if sink is not None:
                with suppress(BaseException):  # keep what it has so far, if that can be done
                    sink.close()

    def _next_line(self) -> str | None:
        """Wait for a line; none once there will be no more."""
        with self._change:
            while not (self._lines or self._closing or self._dropped):
                self._change.wait()
            if not self._lines:
                return None
            line = self._lines.popleft()
            self._waiting -= len(line)
            return line


def close_all(sinks: Sequence[SinkThread], timeout: float = 15.0) -> None:
    """Close several sinks at the same time.

    Parameters
    ----------
    sinks : Sequence[SinkThread]
        The sinks.
    timeout : float (default: 15.0)
        The longest that this waits for all of them together (s).
    """
    until = time.monotonic() + timeout
    for sink in sinks:
        sink.finish()
    for sink in sinks:
        sink.close(max(0.0, until - time.monotonic()))
