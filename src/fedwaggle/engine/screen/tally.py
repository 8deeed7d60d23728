"""What happened in a round so far.

The engine does not know what a round is: the ServerApp is any program. Flower's strategies
write ``server-round`` into the config that they send, which identifies the messages of a
round. Of the metrics that clients report of an evaluation, one is shown: the first that is
neither a loss nor a count, or else the first loss.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedwaggle.numbers import value_text
from fedwaggle.text import printable

if TYPE_CHECKING:
    from flwr.app import RecordDict

__all__ = ["RoundTally", "round_of"]

_COUNTS = ("num-examples", "num_examples")
_LARGEST = 1e6
_LONGEST_NAME = 40  # characters


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
    metric : str
        Name of the metric that is shown of the clients' evaluations.
    values : list[float]
        Its values so far.
    began : float
        When the first message was sent, on the monotonic clock (s).
    """

    number: int = 0
    sent: dict[str, int] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    errors: int = 0
    metric: str = ""
    values: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def line(self, num_rounds: int | None, now: float) -> str:
        """Return the round on one line.

        Examples
        --------
        >>> tally = RoundTally(2, {"train": 5}, {"train": 5}, 1, "mae", [0.5, 0.7], began=0.0)
        >>> tally.line(3, now=1.25)
        "round 2/3  train 5/5  errors 1  clients' mae 0.6  1.2 s"
        """
        of = f"/{num_rounds}" if num_rounds else ""
        kinds = [f"{kind} {self.done.get(kind, 0)}/{n}" for kind, n in self.sent.items()]
        parts = [f"round {self.number}{of}", *kinds]
        if self.errors:
            parts.append(f"errors {self.errors}")
        if self.values:
            parts.append(self.clients_metric)
        return "  ".join([*parts, f"{now - self.began:.1f} s"])

    @property
    def clients_metric(self) -> str:
        """The mean of the clients' metric so far, with its name; or nothing."""
        if not self.values:
            return ""
        mean = sum(self.values) / len(self.values)
        return f"clients' {self.metric} {value_text(self.metric, mean)}"

    def add_evaluation(self, content: RecordDict) -> None:
        """Count the metric of one client's evaluation."""
        for name, value in _candidates(content):
            shown = printable(name, _LONGEST_NAME)
            self.metric = self.metric or shown
            if shown == self.metric:
                self.values.append(value)
                return


def round_of(content: RecordDict) -> int | None:
    """Return the round that a message's config names, if it does."""
    for record in content.values():
        number = record.get("server-round")
        if isinstance(number, int):
            return number
    return None


def _candidates(content: RecordDict) -> list[tuple[str, float]]:
    """Return the metrics of a reply that may be shown, the best one first."""
    found = [
        (name, float(value))
        for record in content.metric_records.values()
        for name, value in record.items()
        # A client may report any number; one that is too large is not shown.
        if isinstance(value, int | float) and name not in _COUNTS and abs(value) <= _LARGEST
    ]
    return sorted(found, key=lambda metric: "loss" in metric[0].lower())
