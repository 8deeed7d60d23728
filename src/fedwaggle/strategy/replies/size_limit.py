"""A limit on what is fetched of a reply over the network, before it is fetched.

Flower's networked grid fetches all that a reply holds before anyone can look at it: a client that
answers a model of 200 kB with 300 MB takes 300 MB of the server's memory. But it first receives the
list of the reply's parts, of which an array is one part for each 5 MiB. A list that is much longer
than the model's is refused, and nothing on it is fetched. A single part is bounded by the proxy in
front of the SuperLink (``deploy/nginx.conf``).
"""

from __future__ import annotations

import json
import threading
from typing import Any

from flwr.app import ArrayRecord
from flwr.serverapp import Grid

from fedwaggle.grids import ReplyTooLarge
from fedwaggle.strategy.replies.forms import Form

__all__ = ["limit_replies", "most_parts"]

_CHUNK_BYTES = 5_242_880  # flwr.common.constant.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
_OTHER_PARTS = 24  # the message, its records, and some of a user's own


def most_parts(arrays: ArrayRecord, form: Form) -> int:
    """Return how many parts a reply may have.

    Parameters
    ----------
    arrays : ArrayRecord
        The model.
    form : Form
        Which arrays a reply holds; of those that may be others than the model's, four times as
        many.

    Examples
    --------
    >>> import numpy as np
    >>> from flwr.app import Array
    >>> most_parts(ArrayRecord({"w": Array(np.zeros(3_000_000, "float32"))}), Form.MODEL)
    28
    """
    chunks = sum(1 + -(-len(array.data) // _CHUNK_BYTES) for array in arrays.values())
    return _OTHER_PARTS + chunks * (1 if form is Form.MODEL else 4)


def limit_replies(grid: Grid, most: int) -> None:
    """Let Flower's networked grid raise ``ReplyTooLarge`` for a reply of too many parts.

    Any other grid is left as it is.

    Parameters
    ----------
    grid : Grid
        What carries the messages.
    most : int
        The most parts that a reply may have.
    """
    client = getattr(grid, "_runtime_client", None)
    if hasattr(client, "PullMessages") and "_client" in vars(grid):
        vars(grid)["_client"] = _Limited(getattr(client, "limited", client), most)


class _Limited:
    """Flower's client of the SuperLink, with a look at each list of parts, and at each array's."""

    def __init__(self, client: Any, most: int) -> None:  # noqa: ANN401  # RuntimeHttpClient
        self.limited, self._most = client, most
        self._budgets: dict[str, _Budget] = {}  # of the reply that a part belongs to, by part

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.limited, name)

    def PullMessages(self, request: Any) -> Any:  # noqa: ANN401, N802  # Flower's name
        answer = self.limited.PullMessages(request)
        for tree in answer.message_object_trees:
            parts = _parts(tree, self._most)
            if len(parts) > self._most:
                raise ReplyTooLarge(
                    f"expected a reply of at most {self._most} parts, as the model has them, got "
                    "more; nothing of it was fetched"
                )
            self._budgets |= dict.fromkeys(parts, _Budget(self._most))
        return answer

    def PullObject(self, request: Any) -> Any:  # noqa: ANN401, N802  # Flower's name
        answer = self.limited.PullObject(request)
        if answer.object_content and (budget := self._budgets.pop(request.object_id, None)):
            budget.spend(_chunks(answer.object_content))
        return answer


class _Budget:
    """How many chunks the arrays of a reply may still be made of.

    One chunk may stand in an array any number of times (an array of zeros is one chunk), so that
    few parts can be made into an array that no memory holds.
    """

    def __init__(self, most: int) -> None:
        self._left = most
        self._lock = threading.Lock()  # Flower fetches the parts of a reply side by side

    def spend(self, chunks: int) -> None:
        with self._lock:
            self._left -= chunks
            if self._left < 0:
                raise ReplyTooLarge("expected arrays of the model's size, got larger ones")


def _parts(tree: Any, most: int) -> list[str]:  # noqa: ANN401  # ObjectTree
    """Return the ids of the objects in a tree; of a large one, more than ``most`` and not all."""
    left, found = [tree], list[str]()
    while left and len(found) <= most:
        part = left.pop()
        left.extend(part.children)
        found.append(part.object_id)
    return found


def _chunks(content: bytes) -> int:
    """Return of how many chunks an array is made; 0 for anything else."""
    head, _, body = content.partition(b"\0")
    if not head.startswith(b"Array "):
        return 0
    return len(json.loads(body)["arraychunk_ids"])
