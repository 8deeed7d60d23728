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
    metadata/<field>/last        history: the last number of each client, as a histogram
    client/<name>/<field>        number field of one client; of a history, the last number
    reply-seconds                from the push to the reply, over the clients, as a histogram

Fields of metadata are those of :mod:`fedwaggle.runs.metadata_fields`, so any metadata class is
shown; a field of an object in the metadata is ``gpu/heat``. Names that clients chose are made
harmless, and what is no ordinary number is left out of pictures: one client cannot take a tracker
from the others.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field
from datetime import datetime

from fedwaggle.numbers import as_float, is_ordinary
from fedwaggle.runs.events import ClientUpdated, Event, RoundFinished, RoundStarted
from fedwaggle.runs.metadata_fields import Chartable, chartable_fields

__all__ = ["Converged", "RoundFacts", "Rounds", "tag", "update_fields"]

MAX_CLIENTS = 50  # with numbers of their own
MAX_METRICS = 50  # of one set, and numbers of one metric


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
        for name, value in chartable_fields(update.metadata or {}):
            metadata_field = "/".join(map(tag, name.split(".")))
            if isinstance(value, bool):
                count = scalars.get(f"metadata/{metadata_field}", 0.0)
                scalars[f"metadata/{metadata_field}"] = count + value
                continue
            is_history = isinstance(value, list)
            last = value[-1] if isinstance(value, list) else value
            if not is_ordinary(last):
                continue
            sample = f"metadata/{metadata_field}" + ("/last" if is_history else "")
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
        shown = dict(chartable_fields(said))
        seconds, losses = shown.get("training_time"), shown.get("training_losses")
        return Converged(
            update.round,
            update.client,
            seconds if isinstance(seconds, float) and is_ordinary(seconds) else None,
            tuple(filter(is_ordinary, losses)) if isinstance(losses, list) else (),
        )


def update_fields(update: ClientUpdated) -> list[tuple[str, Chartable]]:
    """Return what a client's update is listed with: its size, its time, and its metadata."""
    own: list[tuple[str, Chartable]] = [
        ("num_examples", update.num_examples),
        ("seconds", update.seconds),
    ]
    return [*own, *chartable_fields(update.metadata or {})]


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
        for name, value in list(metrics.items())[:MAX_METRICS]:
            if isinstance(value, list):
                numbers = enumerate(value[:MAX_METRICS])
                scalars |= {f"{group}/{tag(name)}/{i}": as_float(each) for i, each in numbers}
            else:
                scalars[f"{group}/{tag(name)}"] = as_float(value)
    return scalars
