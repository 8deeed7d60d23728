"""What happened in a round so far.

The engine does not know what a round is: the ServerApp is any program. Flower's strategies
write ``server-round`` into the config that they send, and from it the messages of a round are
told apart. Accuracy is whatever metric of an evaluation has "acc" in its name.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flwr.app import RecordDict

__all__ = ["RoundTally", "accuracy_of", "round_of"]


@dataclass
class RoundTally:
    """What happened in a round so far.

    Attributes
    ----------
    number : int
        The round; 0 is what was sent before the first, or without one.
    sent, done : dict[str, int]
        Messages that were sent and that were answered, by kind: train, evaluate, query.
    errors : int
        How many of the answers were errors.
    accuracies : list[float]
        What the clients' evaluations said.
    began : float
        When the first message was sent, on the monotonic clock (s).
    """

    number: int = 0
    sent: dict[str, int] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    errors: int = 0
    accuracies: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def line(self, num_rounds: int | None, now: float) -> str:
        """Return the round on one line.

        Examples
        --------
        >>> tally = RoundTally(2, {"train": 5}, {"train": 5}, 1, [0.5, 0.7], began=0.0)
        >>> tally.line(3, now=1.25)
        "round 2/3  train 5/5  errors 1  clients' accuracy 0.600  1.2 s"
        """
        of = f"/{num_rounds}" if num_rounds else ""
        kinds = [f"{kind} {self.done.get(kind, 0)}/{n}" for kind, n in self.sent.items()]
        parts = [f"round {self.number}{of}", *kinds]
        if self.errors:
            parts.append(f"errors {self.errors}")
        if self.accuracies:
            parts.append(f"clients' accuracy {self.accuracy}")
        return "  ".join([*parts, f"{now - self.began:.1f} s"])

    @property
    def accuracy(self) -> str:
        """The mean of the accuracies so far, or nothing."""
        if not self.accuracies:
            return ""
        return f"{sum(self.accuracies) / len(self.accuracies):.3f}"


def round_of(content: RecordDict) -> int | None:
    """Return the round that a message's config names, if it does."""
    for record in content.values():
        number = record.get("server-round")
        if isinstance(number, int):
            return number
    return None


def accuracy_of(content: RecordDict) -> float | None:
    """Return the first metric that has an accuracy's name, and is from 0 to 100."""
    for record in content.values():
        for name, value in record.items():
            # What a client says: it may be any number, and one that says too much says nothing.
            if isinstance(value, int | float) and "acc" in name.lower() and 0 <= value <= 100:
                return float(value)
    return None
