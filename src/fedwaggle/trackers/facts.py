"""What trackers show of a round: named numbers, computed from its events.

::

    learning-rate, round-seconds
    global/<metric>              the server's evaluation of the global model
    train/<metric>               the clients' training metrics, averaged
    evaluate/<metric>            the clients' evaluation metrics, averaged
    clients/updates, clients/quarantined, clients/missing
    metadata/<field>             number field: its values over the clients, as a histogram
    metadata/<field>/mean, max   the same, in short
    metadata/<field>             yes-or-no field: how many clients said yes
    metadata/<field>/last        field of several numbers: the last of each client, as a histogram
    client/<name>/<field>        number field of one client; of several numbers, the last
    reply-seconds                from the push to the reply, over the clients, as a histogram

Fields of metadata are read by their type alone, so any metadata class is shown. What clients
named is made harmless, and what they said is left out of pictures unless it is an ordinary
number: one client cannot take a tracker from the others.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from fedwaggle.runs.events import ClientUpdated, Event, RoundFinished, RoundStarted

__all__ = ["Converged", "RoundFacts", "Rounds", "number", "tag"]

MAX_CLIENTS = 50  # with numbers of their own
MAX_FIELDS = 50  # of one client's metadata, and of one set of metrics
MAX_MAGNITUDE = 1e100  # beyond it, the width of a histogram's bins may overflow


@dataclass(frozen=True)
class Converged:
    """A client said that it had converged, and had not said so in its update before.

    Attributes
    ----------
    round : int
        The round.
    client : str
        The client's name.
    training_time : float | None
        What it said of its training time (s), if it did.
    losses : tuple[float, ...]
        What it said of its training losses, first to last, if it did.
    """

    round: int
    client: str
    training_time: float | None
    losses: tuple[float, ...]


@dataclass(frozen=True)
class RoundFacts:
    """A round that has ended, in numbers.

    Attributes
    ----------
    round : int
        The round; 0 is the initial model.
    time : datetime
        When it ended.
    scalars : dict[str, float]
        Numbers by name; those of the metrics may be NaN or infinite.
    samples : dict[str, list[float]]
        Values over the round's clients by name, each finite; none is empty.
    converged : tuple[Converged, ...]
        The clients that converged.
    """

    round: int
    time: datetime
    scalars: dict[str, float]
    samples: dict[str, list[float]]
    converged: tuple[Converged, ...]


@dataclass
class Rounds:
    """Collects the events of rounds, one after the other."""

    _updates: list[ClientUpdated] = field(default_factory=list)
    _charted: dict[str, None] = field(default_factory=dict)  # clients with numbers of their own
    _converged: set[str] = field(default_factory=set)

    def see(self, event: Event) -> RoundFacts | None:
        """Take an event; return the facts of a round if it ends one."""
        match event:
            case RoundStarted():
                self._updates.clear()
            case ClientUpdated():
                self._updates.append(event)
            case RoundFinished():
                return self._facts(event)
        return None

    def _facts(self, finished: RoundFinished) -> RoundFacts:
        scalars = _server_scalars(finished)
        samples: dict[str, list[float]] = {}
        for update in self._updates:
            self._add_client(update, scalars, samples)
        for name in [name for name in samples if name.startswith("metadata/")]:
            scalars[f"{name}/mean"] = math.fsum(samples[name]) / len(samples[name])
            scalars[f"{name}/max"] = max(samples[name])
        converged = tuple(filter(None, map(self._convergence, self._updates)))
        return RoundFacts(finished.round, finished.time, scalars, samples, converged)

    def _add_client(
        self,
        update: ClientUpdated,
        scalars: dict[str, float],
        samples: dict[str, list[float]],
    ) -> None:
        samples.setdefault("reply-seconds", []).append(update.seconds)
        if len(self._charted) < MAX_CLIENTS:
            self._charted.setdefault(update.client)
        for name, value in list((update.metadata or {}).items())[:MAX_FIELDS]:
            metadata_field = tag(name)
            if isinstance(value, bool):
                count = scalars.get(f"metadata/{metadata_field}", 0.0)
                scalars[f"metadata/{metadata_field}"] = count + value
                continue
            several = _numbers(value)
            last = several[-1] if several else number(value)
            if last is None:
                continue
            sample = f"metadata/{metadata_field}" + ("/last" if several else "")
            samples.setdefault(sample, []).append(last)
            if update.client in self._charted:
                scalars[f"client/{tag(update.client)}/{metadata_field}"] = last

    def _convergence(self, update: ClientUpdated) -> Converged | None:
        said = update.metadata or {}
        if said.get("converged") is not True:
            self._converged.discard(update.client)
            return None
        if update.client in self._converged:
            return None
        self._converged.add(update.client)
        return Converged(
            update.round,
            update.client,
            number(said.get("training_time")),
            tuple(_numbers(said.get("training_losses"))),
        )


def tag(name: str) -> str:
    r"""Return a name that somebody else chose as a part of a tracker's name.

    Names that had to be changed get a few digits of their hash, so that two stay two.

    Examples
    --------
    >>> tag("train_loss"), tag("7")
    ('train_loss', '7')
    >>> tag("../../etc") == tag(r"..\..\etc")
    False
    """
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:64]
    if plain == name and name:
        return plain
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=3).hexdigest()
    return f"{plain}-{digest}"


def number(value: object) -> float | None:
    """Return an ordinary number as a float, and none for everything else.

    Examples
    --------
    >>> number(3), number(True), number(float("nan")), number(10**400), number("3")
    (3.0, None, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not abs(value) <= MAX_MAGNITUDE:  # NaN is not, either
        return None
    return float(value)


def _numbers(values: object) -> list[float]:
    """Return the numbers of a list, or of a mapping's values, in their order."""
    if isinstance(values, Mapping):
        values = list(values.values())
    if not isinstance(values, list):
        return []
    return [each for each in map(number, values) if each is not None]


def _server_scalars(finished: RoundFinished) -> dict[str, float]:
    scalars = {
        "clients/updates": float(finished.updates),
        "clients/quarantined": float(finished.quarantined),
        "clients/missing": float(len(finished.missing)),
        "round-seconds": finished.seconds,
    }
    if finished.learning_rate is not None:
        scalars["learning-rate"] = finished.learning_rate
    for group, metrics in (
        ("global", finished.metrics),
        ("train", finished.train_metrics),
        ("evaluate", finished.evaluate_metrics),
    ):
        for name, value in list(metrics.items())[:MAX_FIELDS]:
            if isinstance(value, list):
                numbers = enumerate(value[:MAX_FIELDS])
                scalars |= {f"{group}/{tag(name)}/{i}": _float(each) for i, each in numbers}
            else:
                scalars[f"{group}/{tag(name)}"] = _float(value)
    return scalars


def _float(value: float | int) -> float:
    """Return a metric as a float; an integer beyond all floats is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value > 0 or -1)
