"""What the clients of a federation train on: each node is asked once how many labels it has.

A simulation does not ask: there the server divides the data itself, and knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedwaggle.identity import LABELS_ACTION, LABELS_KEY, printable_name
from fedwaggle.strategy.exchange import Patience, exchange

__all__ = ["LabelCensus", "label_counts_in"]

_MOST_LABELS = 10_000
_LARGEST_COUNT = 2**53


class LabelCensus:
    """Asks nodes for their label counts, each node once.

    Parameters
    ----------
    grid : Grid
        What carries the messages.
    timeout : float
        Seconds to wait for the answers; a node may have to load its data first.
    """

    def __init__(self, grid: Grid, timeout: float) -> None:
        self._grid = grid
        self._timeout = timeout
        self._asked: set[int] = set()

    def take(self, node_ids: Iterable[int]) -> dict[int, dict[str, int]]:
        """Ask those of the nodes that have not been asked, and return what they count.

        A node that does not answer, answers with an error, or sends no counts, is left out.
        """
        strangers = sorted(set(node_ids) - self._asked)
        self._asked.update(strangers)
        if not strangers:
            return {}
        content = RecordDict({"config": ConfigRecord()})
        questions = [
            Message(content, dst_node_id=node_id, message_type=f"query.{LABELS_ACTION}")
            for node_id in strangers
        ]
        counted: dict[int, dict[str, int]] = {}
        for arrival in exchange(self._grid, questions, Patience(self._timeout)):
            if not arrival.message.has_error():
                record = arrival.message.content.get(LABELS_KEY)
                counts = label_counts_in(record if isinstance(record, ConfigRecord) else {})
                if counts:
                    counted[arrival.node_id] = counts
        return counted


def label_counts_in(record: Mapping[str, object]) -> dict[str, int]:
    """Return the label counts that a client sent, or none if they are not usable as such.

    Parameters
    ----------
    record : Mapping[str, object]
        With ``"labels"``, at most 10,000 printable names, and ``"counts"``, as many whole numbers.

    Examples
    --------
    >>> label_counts_in({"labels": ["cat", "dog"], "counts": [20, 3]})
    {'cat': 20, 'dog': 3}
    >>> label_counts_in({"labels": ["cat"], "counts": [-1]})
    {}
    """
    labels, counts = record.get("labels"), record.get("counts")
    if not isinstance(labels, list) or not isinstance(counts, list):
        return {}
    if len(labels) != len(counts) or len(labels) > _MOST_LABELS:
        return {}
    found = dict(zip(labels, counts, strict=True))
    is_usable = all(
        printable_name(label) is not None and type(count) is int and 0 <= count <= _LARGEST_COUNT
        for label, count in found.items()
    )
    return found if is_usable else {}
