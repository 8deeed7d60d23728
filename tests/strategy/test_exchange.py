"""Laws of one exchange with a cohort."""

from __future__ import annotations

import time

import pytest
from flwr.app import ConfigRecord, Message, MessageType, MetricRecord, RecordDict

from fedwaggle.strategy.exchange import exchange


def hello(node_id: int) -> Message:
    content = RecordDict({"config": ConfigRecord()})
    return Message(content, dst_node_id=node_id, message_type=MessageType.TRAIN)


def echo(msg, context):
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=msg)


def test_each_node_answers_once_and_is_known_by_where_the_message_went(make_grid):
    grid = make_grid(echo, 3)
    arrivals = list(exchange(grid, [hello(100), hello(101), hello(102)], timeout=5))
    assert sorted(arrival.node_id for arrival in arrivals) == [100, 101, 102]
    assert all(0 <= arrival.seconds < 5 for arrival in arrivals)


def test_no_messages_are_an_exchange_without_replies(make_grid):
    assert list(exchange(make_grid(echo, 1), [], timeout=5)) == []


def test_a_silent_node_costs_the_timeout_and_the_others_are_kept(make_grid):
    grid = make_grid(echo, 3)
    grid.silent = {101}
    began = time.monotonic()
    arrivals = list(exchange(grid, [hello(100), hello(101), hello(102)], timeout=0.3))
    assert sorted(arrival.node_id for arrival in arrivals) == [100, 102]
    assert 0.3 <= time.monotonic() - began < 2


def test_replies_come_one_by_one_not_at_the_end(make_grid):
    """The first reply is there before the silent node's time is up."""
    grid = make_grid(echo, 2)
    grid.silent = {101}
    began = time.monotonic()
    first = next(exchange(grid, [hello(100), hello(101)], timeout=30))
    assert first.node_id == 100
    assert time.monotonic() - began < 5


def test_an_error_reply_belongs_to_the_node_that_was_asked(make_grid):
    def boom(msg, context):
        raise RuntimeError("boom")

    (arrival,) = exchange(make_grid(boom, 1), [hello(100)], timeout=5)
    assert arrival.node_id == 100
    assert arrival.message.has_error()


@pytest.mark.parametrize("lost", [None, "never-issued"])
def test_a_message_that_the_grid_did_not_take_is_not_waited_for(make_grid, lost, monkeypatch):
    grid = make_grid(echo, 2)
    push = grid.push_messages
    monkeypatch.setattr(grid, "push_messages", lambda messages: [push(messages)[0], lost])
    arrivals = list(exchange(grid, [hello(100), hello(101)], timeout=5))
    assert [arrival.node_id for arrival in arrivals] == [100]
