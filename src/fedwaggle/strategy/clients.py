"""The clients of a run: how they are asked, and what they are called.

A SuperNode that was registered with a name keeps it. Elsewhere (in simulation) a client says
its partition id beside its metadata, and that number is its name. A name is a label for
people: nothing is allowed or refused because of it, and no client can take another's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

from fedwaggle.metadata import client_name
from fedwaggle.strategy.exchange import Arrival, exchange

__all__ = ["Clients", "client_order", "name_client"]


class Clients:
    """The nodes of a run, by name.

    Parameters
    ----------
    grid : Grid
        What carries messages to them.
    timeout : float
        Seconds that a cohort has to answer.
    """

    def __init__(self, grid: Grid, timeout: float) -> None:
        self.grid = grid
        self.timeout = timeout
        self._names = {node.node_id: node.name for node in grid.get_nodes() if node.name}

    def ask(self, messages: Sequence[Message]) -> Iterator[tuple[str, Arrival]]:
        """Send each message, and yield each reply with its client's name as it arrives."""
        for arrival in exchange(self.grid, messages, timeout=self.timeout):
            claimed = _claimed_name(arrival.message)
            name = name_client(self._names, arrival.node_id, claimed)
            if claimed is not None:  # a client that said nothing may still say it later
                self._names[arrival.node_id] = name
            yield name, arrival

    def name(self, node_id: int) -> str:
        """Return the name of a node that may never have answered."""
        return name_client(self._names, node_id, None)


def name_client(names: Mapping[int, str], node_id: int, claimed: str | None) -> str:
    """Return the name of a node: the known one, else the claimed one if it is free.

    Parameters
    ----------
    names : Mapping[int, str]
        Names given so far, by node id.
    node_id : int
        The node to name.
    claimed : str | None
        What the client calls itself.

    Returns
    -------
    str
        A name that no other node has.

    Examples
    --------
    >>> name_client({7: "site-a"}, 7, "other")
    'site-a'
    >>> name_client({}, 8, "3")
    '3'
    >>> name_client({8: "3"}, 9, "3")
    'node-9'
    """
    if node_id in names:
        return names[node_id]
    if claimed is not None and claimed not in names.values():
        return claimed
    return f"node-{node_id}"


def client_order(name: str) -> tuple[int, str]:
    """Return the sort key of a client's name, with numbers in the order of counting.

    Examples
    --------
    >>> sorted(["10", "9", "1"], key=client_order)
    ['1', '9', '10']
    """
    return (len(name), name)


def _claimed_name(message: Message, key: str = "metadata") -> str | None:
    if message.has_error():
        return None
    record = message.content.get(key)
    return client_name(record) if isinstance(record, ConfigRecord) else None
