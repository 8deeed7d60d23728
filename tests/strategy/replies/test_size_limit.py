"""A reply of far more parts than the model is refused before anything of it is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from types import SimpleNamespace as Box
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)

from fedwaggle.grids import ReplyTooLarge
from fedwaggle.strategy.replies.forms import Form
from fedwaggle.strategy.replies.size_limit import limit_replies, most_parts


def model(numbers: int) -> ArrayRecord:
    """Return a model of which no two chunks are alike."""
    return ArrayRecord({"w": Array(np.arange(numbers, dtype=np.float32))})


def tree_of(arrays: ArrayRecord) -> Any:
    """Return the list of parts that Flower sends for a reply with these arrays."""
    records = {"arrays": arrays, "metadata": ConfigRecord({"a": 1})}
    message = Message(RecordDict(records), dst_node_id=2, message_type="train")
    message.metadata.__dict__["_message_id"] = message.object_id
    return get_object_tree(message)


class Client:
    """Flower's client, whose answers are given."""

    def __init__(self, tree: Any, parts: Mapping[str, bytes] = MappingProxyType({})) -> None:
        self.tree, self.parts, self.asked = tree, parts, 0

    def PullObject(self, request: Any) -> Any:  # noqa: N802
        return Box(object_content=self.parts[request.object_id])

    def PullMessages(self, request: object) -> Any:  # noqa: N802
        self.asked += 1
        return Box(message_object_trees=[self.tree])


class NetworkedGrid:
    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def _runtime_client(self) -> Any:
        return self._client


@pytest.mark.parametrize(
    ("numbers", "refused"), [(11_000, False), (2 * 5_242_880, False), (75_000_000, True)]
)
def test_a_model_of_44_kb_lets_in_its_like_and_not_300_mb(numbers: int, refused: bool) -> None:
    grid: Any = NetworkedGrid(Client(tree_of(model(numbers))))
    limit_replies(grid, most_parts(model(11_000), Form.MODEL))
    if refused:
        with pytest.raises(ReplyTooLarge, match="at most 26 parts"):
            grid._runtime_client.PullMessages(None)
    else:
        grid._runtime_client.PullMessages(None)


@pytest.mark.parametrize(("numbers", "refused"), [(10_000_000, False), (200_000_000, True)])
def test_few_parts_cannot_become_a_large_array(numbers: int, refused: bool) -> None:
    """800 MB of zeros are one chunk, 153 times, in a list of few parts."""
    record = ArrayRecord({"w": Array(np.zeros(numbers, dtype=np.float32))})
    content = Message(RecordDict({"arrays": record}), dst_node_id=2, message_type="train")
    parts = {key: part.deflate() for key, part in get_all_nested_objects(content).items()}
    assert sum(map(len, parts.values())) < 16_000_000
    grid: Any = NetworkedGrid(Client(tree_of(record), parts))
    limit_replies(grid, most_parts(model(11_000), Form.MODEL))
    client = grid._runtime_client
    tree = client.PullMessages(None).message_object_trees[0]
    keys = [part.object_id for part in iterate_object_tree(tree) if part.object_id in parts]
    assert len(keys) >= 3
    if refused:
        with pytest.raises(ReplyTooLarge, match="got larger ones"):
            [client.PullObject(Box(object_id=key)) for key in keys]
    else:
        [client.PullObject(Box(object_id=key)) for key in keys]


def test_a_second_start_replaces_the_limit_of_the_first() -> None:
    client = Client(tree_of(model(75_000_000)))
    grid: Any = NetworkedGrid(client)
    limit_replies(grid, 1)
    limit_replies(grid, most_parts(model(75_000_000), Form.MODEL))
    grid._runtime_client.PullMessages(None)
    assert client.asked == 1


def test_other_grids_are_left_as_they_are() -> None:
    grid: Any = Box(pull_messages=None)
    limit_replies(grid, 1)
    assert vars(grid) == {"pull_messages": None}
