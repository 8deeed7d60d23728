"""What happens in a run beside its numbers, in words: decisions, quarantines, its end."""

from __future__ import annotations

from typing import NamedTuple

from fedwaggle.numbers import value_text
from fedwaggle.runs.events import (
    CheckpointSaved,
    ClientQuarantined,
    DecisionTaken,
    Event,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
)
from fedwaggle.text import printable

__all__ = ["Happening", "happening"]


class Happening(NamedTuple):
    """Something that happened, for a person.

    Attributes
    ----------
    what : str
        Its kind: ``started``, ``resumed``, ``finished``, ``failed``, ``decision``,
        ``quarantine`` or ``best-model``.
    text : str
        What it was, on one line.
    round : int
        The round, 0 before the first; -1 if it has none.
    client : str
        The client that it is about, if there is one.
    """

    what: str
    text: str
    round: int = -1
    client: str = ""


def happening(event: Event) -> Happening | None:
    """Return what an event means to a person; None for the numbers of a round.

    Examples
    --------
    >>> decision = DecisionTaken(round=3, policy="stop", action="end the run", reason="4 of 5")
    >>> happening(decision).text
    'stop: end the run (4 of 5)'
    """
    match event:
        case RunStarted():
            about = f"strategy {event.strategy}, engine {event.engine}, seed {event.seed}"
            return Happening("started", printable(about))
        case RunResumed():
            return Happening("resumed", f"from round {event.round}", event.round)
        case RunFinished():
            text = f"{event.rounds} rounds, final model {event.sha256}"
            return Happening("finished", text, event.rounds)
        case RunFailed():
            return Happening("failed", printable(event.error), event.round)
        case DecisionTaken():
            text = f"{event.policy}: {event.action} ({event.reason})"
            return Happening("decision", printable(text), event.round)
        case ClientQuarantined():
            client = printable(event.client, 100)
            text = f"{event.code}: {event.reason}"
            return Happening("quarantine", printable(text), event.round, client)
        case CheckpointSaved():
            text = f"{event.metric} {value_text(event.metric, event.value)}"
            return Happening("best-model", printable(text), event.round)
    return None
