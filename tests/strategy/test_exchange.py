"""Laws of one exchange with a cohort."""

from __future__ import annotations

import time

import pytest
from flwr.app import ConfigRecord, Message, MessageType, MetricRecord, RecordDict

from fedwaggle.strategy.exchange import Patience, exchange


def hello(node_id: int) -> Message:
    content = RecordDict({"config": ConfigRecord()})
    return Message(content, dst_node_id=node_id, message_type=MessageType.TRAIN)


def echo(msg, context):
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=msg)


def test_each_node_answers_once_and_is_known_by_where_the_message_went(make_grid):
    grid = make_grid(echo, 3)
    arrivals = list(exchange(grid, [hello(100), hello(101), hello(102)], Patience(5)))
    assert sorted(arrival.node_id for arrival in arrivals) == [100, 101, 102]
    assert all(0 <= arrival.seconds < 5 for arrival in arrivals)


def test_no_messages_are_an_exchange_without_replies(make_grid):
    assert list(exchange(make_grid(echo, 1), [], Patience(5))) == []


def test_a_silent_node_costs_the_timeout_and_the_others_are_kept(make_grid):
    grid = make_grid(echo, 3)
    grid.silent = {101}
    began = time.monotonic()
    arrivals = list(exchange(grid, [hello(100), hello(101), hello(102)], Patience(0.3)))
    assert sorted(arrival.node_id for arrival in arrivals) == [100, 102]
    assert 0.3 <= time.monotonic() - began < 2


def test_replies_come_one_by_one_not_at_the_end(make_grid):
    """The first reply is there before the silent node's time is up."""
    grid = make_grid(echo, 2)
    grid.silent = {101}
    began = time.monotonic()
    first = next(exchange(grid, [hello(100), hello(101)], Patience(30)))
    assert first.node_id == 100
    assert time.monotonic() - began < 5


def test_an_error_reply_belongs_to_the_node_that_was_asked(make_grid):
    def boom(msg, context):
        raise RuntimeError("boom")

    (arrival,) = exchange(make_grid(boom, 1), [hello(100)], Patience(5))
    assert arrival.node_id == 100
    assert arrival.message.has_error()


@pytest.mark.parametrize("lost", [None, "never-issued"])
def test_a_message_that_the_grid_did_not_take_is_not_waited_for(make_grid, lost, monkeypatch):
    grid = make_grid(echo, 2)
    push = grid.push_messages
    monkeypatch.setattr(grid, "push_messages", lambda messages: [push(messages)[0], lost])
    arrivals = list(exchange(grid, [hello(100), hello(101)], Patience(5)))
    assert [arrival.node_id for arrival in arrivals] == [100]


def test_enough_replies_and_the_grace_end_it(make_grid):
    """2 of 3 are enough: the third, which is silent, costs the grace and not the timeout."""
    grid = make_grid(echo, 3)
    grid.silent = {101}
    began = time.monotonic()
    messages = [hello(100), hello(101), hello(102)]
    arrivals = list(exchange(grid, messages, Patience(30, min_replies=2, grace=0.2)))
    assert sorted(arrival.node_id for arrival in arrivals) == [100, 102]
    assert 0.2 <= time.monotonic() - began < 5


def test_errors_do_not_count_as_enough(make_grid):
    """Of 2 clients one raises: its error is no reply to be content with, so both are heard."""

    def second_raises(msg, context):
        if context.node_config["partition-id"] == 0:
            raise RuntimeError("boom")
        time.sleep(0.3)
        return echo(msg, context)

    grid = make_grid(second_raises, 2)
    arrivals = exchange(grid, [hello(100), hello(101)], Patience(30, min_replies=1, grace=0.0))
    assert len(list(arrivals)) == 2


def test_a_reply_whose_arrays_stall_holds_neither_the_others_nor_the_round(make_grid, monkeypatch):
    """Pulling the reply of node 101 blocks for a minute, as a stalled upload does."""
    grid = make_grid(echo, 3)
    pull = grid.pull_messages

    def stalling(ids):
        if any(grid.sent[1].metadata.message_id == i for i in ids):
            time.sleep(60)
        return pull(ids)

    monkeypatch.setattr(grid, "pull_messages", stalling)
    began = time.monotonic()
    messages = [hello(100), hello(101), hello(102)]
    arrivals = list(exchange(grid, messages, Patience(0.5)))
    assert sorted(arrival.node_id for arrival in arrivals) == [100, 102]
    assert time.monotonic() - began < 5


def test_a_grid_that_fails_is_an_error_and_not_a_wait(make_grid, monkeypatch):
    def broken(ids):
        raise ConnectionError("the link is down")

    grid = make_grid(echo, 1)
    monkeypatch.setattr(grid, "pull_messages", broken)
    with pytest.raises(ConnectionError, match="the link is down"):
        list(exchange(grid, [hello(100)], Patience(30)))


def test_a_grid_that_wakes_us_is_not_polled(make_grid):
    """wait_for_reply is called in place of any sleep, with what is left of the time."""
    grid = make_grid(echo, 2)
    waits = []
    grid.wait_for_reply = lambda timeout: waits.append(timeout) or True
    assert len(list(exchange(grid, [hello(100), hello(101)], Patience(5)))) == 2
    assert len(waits) == 1
    assert 4 < waits[0] <= 5


def test_a_second_reply_to_one_message_is_not_used(make_grid, monkeypatch):
    """Node 100 answers twice, together with node 101: two arrivals, one of each."""
    grid = make_grid(echo, 2)
    pull = grid.pull_messages
    monkeypatch.setattr(grid, "pull_messages", lambda ids: [r for r in pull(ids) for _ in "ab"])
    arrivals = list(exchange(grid, [hello(100), hello(101)], Patience(5)))
    assert sorted(arrival.node_id for arrival in arrivals) == [100, 101]


def test_the_messages_are_on_their_way_before_the_first_reply_is_asked_for(make_grid):
    """What a server does between the two, it does while the clients train."""
    grid = make_grid(echo, 1)
    arrivals = exchange(grid, [hello(100)], Patience(5))
    assert grid.sent
    assert [arrival.node_id for arrival in arrivals] == [100]
