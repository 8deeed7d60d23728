"""How long a phase waits: an hour in a simulation, by each client's own replies elsewhere."""

from __future__ import annotations

import pytest
from flwr.app import Error, Message, RecordDict

from fedwaggle.strategy.cohort.waiting import Waiting
from fedwaggle.strategy.exchange import Arrival


def arrival(client: str, seconds: float, *, failed: bool = False) -> tuple[str, Arrival]:
    asked = Message(RecordDict(), dst_node_id=2, message_type="train")
    reply = Message(RecordDict(), reply_to=asked)
    if failed:
        reply = Message(Error(2, "TimeoutError"), reply_to=asked)
    return client, Arrival(2, reply, seconds)


@pytest.mark.parametrize(
    ("asked", "engine", "replies", "seconds"),
    [
        (0, "local", [], 3600),
        (0, "local", [5.0], 3600),
        (0, "flower-superlink", [], 600),
        (0, "flower-superlink", [5.0], 120),
        (0, "flower-superlink", [100.0, 30.0], 300),
        (0, "flower-superlink", [2000.0], 3600),
        (25, "flower-superlink", [100.0], 25),
        (25, "local", [], 25),
    ],
)
def test_the_rule(asked: float, engine: str, replies: list[float], seconds: float) -> None:
    waiting = Waiting(asked, engine)
    assert len(list(waiting.timed(arrival("a", each) for each in replies))) == len(replies)
    assert waiting.seconds(["a"]) == seconds


def test_a_client_that_ended_itself_does_not_get_longer() -> None:
    waiting = Waiting(0, "flower-superlink")
    list(waiting.timed([arrival("a", 20.0), arrival("a", 590.0, failed=True)]))
    assert waiting.seconds(["a"]) == 120


def test_a_slow_client_is_not_cut_off_by_fast_ones() -> None:
    """One that has not answered yet has its ten minutes; the round waits for the slowest."""
    waiting = Waiting(0, "flower-superlink")
    list(waiting.timed([arrival("fast", 5.0), arrival("slow", 90.0)]))
    assert waiting.seconds(["fast"]) == 120
    assert waiting.seconds(["fast", "slow"]) == 270
    assert waiting.seconds(["fast", "new"]) == 600
    assert waiting.notices("fast") == {"client-deadline": 90.0}
    assert waiting.notices("new") == {"client-deadline": 570.0}


@pytest.mark.parametrize(
    ("engine", "notices"),
    [
        ("flower-superlink", {"app-code": "abc", "client-deadline": 570.0}),
        ("flower-simulation", {"app-code": "abc"}),
        ("local", {}),
    ],
)
def test_what_clients_are_sent(engine: str, notices: dict[str, float | str]) -> None:
    """A simulation needs no deadline, and the local engine has one copy of the app."""
    assert Waiting(0, engine, "abc").notices("a") == notices
