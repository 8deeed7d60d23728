"""Follow a run's record: the events that count, those to come as they are written.

Catching up with a run that goes on, and showing one that has ended, are the same: its lines are
read from the first on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from fedwaggle.errors import RunError
from fedwaggle.runs.events import Event, UnknownEvent, current_events, parse_line
from fedwaggle.runs.lines import Lines

__all__ = ["follow", "whole_bytes"]

_LOOK_SECONDS = 0.25


def follow(events: Path, *, past: int, wait_for_end: Callable[[float], bool]) -> Iterator[Event]:
    """Yield the events of a run that count, until it is over.

    Which earlier events still count is known only when the run says from which round it goes on.
    So nothing is yielded before its first new event; then all is, superseded rounds left out.

    Parameters
    ----------
    events : Path
        The run's ``events.jsonl``; it may not be there yet.
    past : int
        How much of it is the past (bytes, whole lines): what follows are new events.
    wait_for_end : Callable[[float], bool]
        Waits so many seconds, or less if the run is over, and returns whether it is.
    """
    lines = Lines(events)
    held: list[Event | UnknownEvent] = []
    is_over = False
    while True:
        for event in _new_events(lines):
            if lines.offset <= past or held:
                held.append(event)
            elif not isinstance(event, UnknownEvent):
                yield event
            if held and lines.offset > past:
                yield from _current(held)
                held = []
        if is_over:
            yield from _current(held)
            return
        is_over = wait_for_end(_LOOK_SECONDS)  # what was written before the end is read above


def whole_bytes(events: Path) -> int:
    """Return how many bytes of a record are whole lines; 0 if it is not there."""
    try:
        return events.read_bytes().rfind(b"\n") + 1
    except FileNotFoundError:
        return 0


def _new_events(lines: Lines) -> Iterator[Event | UnknownEvent]:
    try:
        yield from lines.read(parse_line)
    except RunError:  # it is not there yet
        return


def _current(events: list[Event | UnknownEvent]) -> Iterator[Event]:
    return (each for each in current_events(events) if not isinstance(each, UnknownEvent))
