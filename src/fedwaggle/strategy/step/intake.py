r"""The replies to a round of training: each is admitted, held against the others, and recorded.

::

    a reply -> admit -> hold -> its bounds are known -> accept (whole, or shortened) -> recorded
                  \                                 \-> quarantined: out of line    -> recorded
                   \-> quarantined                                                  -> recorded

Most replies are within their bounds as soon as a few others are in, and go on at once. The rest
waits until the round is over.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from fedwaggle.identity import client_order
from fedwaggle.strategy.bounds.drift import Drift
from fedwaggle.strategy.bounds.outliers import Bounds, Sizes, Terms
from fedwaggle.strategy.codes import Refused
from fedwaggle.strategy.exchange import Arrival
from fedwaggle.strategy.journal import Journal
from fedwaggle.strategy.replies.admission import Admitted
from fedwaggle.strategy.replies.shelf import MetadataShelf
from fedwaggle.strategy.step.collecting import Collector
from fedwaggle.strategy.updates import ClientUpdate, Quarantined

__all__ = ["Intake"]

logger = logging.getLogger("flwr.fedwaggle.strategy")

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)


class _Judge(Protocol[M_co]):
    def __call__(self, arrival: Arrival, *, client: str) -> Admitted[M_co] | Quarantined: ...


class Intake(Generic[M]):
    """Takes the replies of one round.

    Parameters
    ----------
    server_round : int
        The round.
    judge : Callable[[Arrival, str], Admitted[M] | Quarantined]
        Checks one reply by itself.
    bounds : Bounds
        Holds the replies against each other.
    collector : Collector
        Takes the arrays.
    drift : Drift | None
        Compares the changes; None where they are not measured.
    journal : Journal
        Records what becomes of each.
    shelf : MetadataShelf[M]
        Keeps the metadata.
    usable : set[str]
        Filled with the clients whose reply is or may be used.

    Attributes
    ----------
    updates : list[ClientUpdate[M | None]]
        What is in the mean, by client once the round is over.
    quarantined : list[Quarantined]
        What is not.
    """

    def __init__(
        self,
        server_round: int,
        *,
        judge: _Judge[M],
        bounds: Bounds,
        collector: Collector,
        drift: Drift | None,
        journal: Journal,
        shelf: MetadataShelf[M],
        usable: set[str],
    ) -> None:
        self._server_round = server_round
        self._judge, self._bounds, self._collector = judge, bounds, collector
        self._drift = drift
        self._journal, self._shelf, self._usable = journal, shelf, usable
        self._held: dict[str, ClientUpdate[M | None]] = {}
        self.updates: list[ClientUpdate[M | None]] = []
        self.quarantined: list[Quarantined] = []

    def take(self, client: str, arrival: Arrival) -> None:
        """Take a reply, and accept those that are known to be within their bounds."""
        reply = self._judge(arrival, client=client)
        if isinstance(reply, Quarantined):
            self._quarantine(reply)
            return
        self._usable.add(client)
        self._held[client] = self._shelf.put(reply)
        self._collector.hold(reply)
        if self._drift:
            self._drift.hold(client, reply.arrays)
        self._bounds.add(client, Sizes(reply.norms, reply.update.num_examples))
        for name, terms in self._bounds.settled().items():
            self._accept(name, terms)

    def finish(self) -> None:
        """Decide on the replies that are still held: no other will come."""
        for client, outcome in self._bounds.rest().items():
            if isinstance(outcome, Terms):
                self._accept(client, outcome)
                continue
            update = self._held.pop(client)
            self._usable.discard(client)
            self._quarantine(_out_of_use(update, outcome))
        self.updates.sort(key=lambda update: client_order(update.client))

    def drop(self, clients: Sequence[str], refused: Refused) -> None:
        """Quarantine clients whose updates were accepted, and turned out not to be usable."""
        for update in [one for one in self.updates if one.client in clients]:
            self.updates.remove(update)
            self._usable.discard(update.client)
            if self._drift:
                self._drift.skip(update.client)
            bad = _out_of_use(update, refused)
            self.quarantined.append(bad)
            self._journal.quarantined(self._server_round, bad, "train")

    def _accept(self, client: str, terms: Terms) -> None:
        update = self._held.pop(client)
        self._collector.accept(client, terms)
        if self._drift:
            self._drift.accept(client, terms.weight * (terms.scales[0] if terms.scales else 1.0))
        if terms.is_clipped or terms.weight < update.num_examples:
            update = update.bounded(min(terms.scales, default=1.0), terms.weight)
            logger.info("train: client %s: bounded, %s", client, _shortened(update))
        self.updates.append(update)
        self._journal.update(update)

    def cosines(self) -> dict[str, float]:
        """Return the cosine of each update's change to the mean of all, where it is measured."""
        return self._drift.cosines() if self._drift else {}

    def _quarantine(self, bad: Quarantined) -> None:
        self._collector.skip(bad.client)
        if self._drift:
            self._drift.skip(bad.client)
        self.quarantined.append(bad)
        self._journal.quarantined(self._server_round, bad, "train")


def _out_of_use(update: ClientUpdate[M], refused: Refused) -> Quarantined:
    return Quarantined(update.client, update.node_id, refused.code, refused.reason, update.seconds)


def _shortened(update: ClientUpdate[M]) -> str:
    """Return in words what was bounded of an update."""
    parts = []
    if update.scale < 1:
        parts.append(f"its change is shortened to {update.scale:.2g} of its length")
    if update.weight is not None and update.weight < update.num_examples:
        parts.append(f"its weight of {update.num_examples:g} counts as {update.weight:g}")
    return " and ".join(parts)
