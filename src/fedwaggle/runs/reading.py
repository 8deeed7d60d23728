"""The events of a run, read from its record: all, those that count, and those to come.

What a resume goes back behind no longer counts: it is superseded. Catching up with a run that
goes on, and showing one that has ended, are the same: lines are read from the first on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from fedwaggle.errors import RunError
from fedwaggle.runs.events import (
    Event,
    RunFailed,
    RunFinished,
    RunResumed,
    UnknownEvent,
    parse_line,
)
from fedwaggle.runs.lines import Lines

__all__ = [
    "current_events",
    "follow",
    "marked_events",
    "read_events",
    "resume_rounds",
    "whole_bytes",
]

_LOOK_SECONDS = 0.25


def read_events(path: str | Path) -> Iterator[Event | UnknownEvent]:
    """Yield the events of a run, in the order in which they happened.

    A last line without its end is still being written, or never was to its end: it is left out.
    A damaged line is skipped, with one warning for the file.

    Parameters
    ----------
    path : str | Path
        An ``events.jsonl``.

    Yields
    ------
    Event | UnknownEvent
        What :func:`parse_line` makes of each line.

    Raises
    ------
    RunError
        If there is no such file. The message names it.
    """
    return Lines(Path(path)).read(parse_line)


def resume_rounds(lines: Iterable[bytes]) -> list[int]:
    """Return after which round each resume in a record went on.

    Examples
    --------
    >>> resumed = RunResumed(round=3, num_rounds=5, engine="local", nodes=2)
    >>> from fedwaggle.runs.events import to_line
    >>> resume_rounds([to_line(resumed).encode(), b'{"event": "run-finished"}'])
    [3]
    """
    # Most lines are of client updates: they are not parsed to look for the few.
    found = (_resumed(line) for line in lines if b"run-resumed" in line)
    return [event.round for event in found if event is not None]


def _resumed(line: bytes) -> RunResumed | None:
    try:
        event = parse_line(line)
    except RunError:
        return None
    return event if isinstance(event, RunResumed) else None


def marked_events(
    events: Iterable[Event | UnknownEvent], resumes: Sequence[int]
) -> Iterator[tuple[Event | UnknownEvent, bool]]:
    """Yield each event, and whether it counts: no later resume has superseded it.

    Parameters
    ----------
    events : Iterable[Event | UnknownEvent]
        The events of one run, from the first. They may be streamed: none is held.
    resumes : Sequence[int]
        After which round each resume among them went on, as :func:`resume_rounds` returns.
    """
    # Of all resumes that are still to come, the one that goes back furthest.
    floors = list(accumulate(reversed(resumes), min))[::-1]
    seen = 0
    for event in events:
        seen += isinstance(event, RunResumed)
        yield event, seen >= len(floors) or not _is_after(event, floors[seen])


def current_events(events: Iterable[Event | UnknownEvent]) -> list[Event | UnknownEvent]:
    """Leave out what a later resume has superseded, and keep the rest in its order.

    Parameters
    ----------
    events : Iterable[Event | UnknownEvent]
        The events of one run, as :func:`read_events` yields them.

    Returns
    -------
    list[Event | UnknownEvent]
        At most one story for each round, however often the run was interrupted.

    Examples
    --------
    >>> def line(kind, round):
    ...     return UnknownEvent(event=kind, raw={"round": round})
    >>> resumed = RunResumed(round=1, num_rounds=3, engine="local", nodes=2)
    >>> story = [line("a", 1), line("a", 2), resumed, line("b", 2)]
    >>> [event.event for event in current_events(story)]
    ['a', 'run-resumed', 'b']
    """
    events = list(events)
    resumes = [event.round for event in events if isinstance(event, RunResumed)]
    return [event for event, counts in marked_events(events, resumes) if counts]


def _is_after(event: Event | UnknownEvent, server_round: int) -> bool:
    """Whether an event is of a later round, or the end of a run that then went on."""
    if isinstance(event, RunFinished | RunFailed):
        return True
    raw_round = event.raw.get("round") if isinstance(event, UnknownEvent) else None
    of_round = getattr(event, "round", raw_round)
    return isinstance(of_round, int) and of_round > server_round


def follow(events: Path, *, past: int, wait_for_end: Callable[[float], bool]) -> Iterator[Event]:
    """Yield the events of a run that count, until it is over.

    Which earlier events still count is known only once the run records from which round it resumes.
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
