"""Show a resumed run whole: first what happened before, then what happens now.

Which earlier events still count is known only when the run says from which round it goes on.
So nothing is shown before its first new event; then all is, superseded rounds left out.
"""

from __future__ import annotations

from pathlib import Path

from fedwaggle.runs.events import Event, UnknownEvent, current_events, parse_line
from fedwaggle.runs.lines import Lines
from fedwaggle.runs.sinks import Sink

__all__ = ["CatchUp"]


class CatchUp:
    """A sink that is shown the past of the run before its first new event.

    Parameters
    ----------
    sink : Sink
        The sink itself.
    events : Path
        The run's ``events.jsonl``.
    past : int
        How much of it is the past (bytes, whole lines); what follows comes as new events.
    """

    def __init__(self, sink: Sink, events: Path, past: int) -> None:
        self._sink = sink
        self._events = events
        self._past = past

    def record(self, event: Event) -> None:
        """Show an event, and the past before the first."""
        past, self._past = self._past, 0
        for each in current_events([*_read(self._events, past), event]):
            if not isinstance(each, UnknownEvent):
                self._sink.record(each)

    def close(self) -> None:
        """Close the sink."""
        self._sink.close()


def _read(events: Path, size: int) -> list[Event | UnknownEvent]:
    return list(Lines(events).read(parse_line, until=size)) if size else []
