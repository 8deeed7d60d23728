"""A client's side of Flower, in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flwr.supercore.task_identity import TaskIdentity


@pytest.fixture(autouse=True)
def run_of_flower() -> Iterator[None]:
    """Flower makes messages only within a run."""
    keys = ("_task_id", "_run_id", "_node_id")
    before = {key: getattr(TaskIdentity, key) for key in keys}
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    yield
    for key, value in before.items():
        setattr(TaskIdentity, key, value)
