"""Laws of one exchange with a cohort."""

from __future__ import annotations

import threading
import time

import httpx
import pytest
from flwr.app import ConfigRecord, Error, Message, MessageType, MetricRecord, RecordDict
from flwr.supercore.run import RunNotRunningException

from fedwaggle.strategy.exchange import UNREADABLE, Patience, exchange
from waiting import FOR_EVER, PATIENCE


def hello(node_id: int) -> Message:
    content = RecordDict({"config": ConfigRecord()})
    return Message(content, dst_node_id=node_id, message_type=MessageType.TRAIN)


def echo(msg, context):
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=msg)


def waking(grid):
    """Let a grid know which replies there are, as the local engine's does."""
    grid.asked, grid.given_up = [], []

    def wait_for_replies(message_ids, timeout):
        grid.asked.append(timeout)
        return sorted(message_ids, key=int)

    grid.wait_for_replies, grid.give_up = wait_for_replies, grid.given_up.extend
    return grid


def test_each_node_answers_once_and_is_known_by_where_the_message_went(make_grid):
    grid = make_grid(echo, 3)
    arrivals = list(exchange(grid, [hello(100), hello(101), hello(102)], Patience(FOR_EVER)))
    assert sorted(arrival.node_id for arrival in arrivals) == [100, 101, 102]
    assert all(0 <= arrival.seconds < PATIENCE for arrival in arrivals)


def test_no_messages_are_an_exchange_without_replies(make_grid):
    assert list(exchange(make_grid(echo, 1), [], Patience(FOR_EVER))) == []


def test_a_silent_node_costs_the_timeout_and_the_others_are_kept(make_grid):
    grid = make_grid(echo, 3)
    grid.silent = {101}
    began = time.monotonic()
    arrivals = list(exchange(grid, [hello(100), hello(101), hello(102)], Patience(1.0)))
    assert sorted(arrival.node_id for arrival in arrivals) == [100, 102]
    assert 1.0 <= time.monotonic() - began < PATIENCE


def test_replies_come_one_by_one_not_at_the_end(make_grid):
    """The first reply is there before the silent node's time is up."""
    grid = make_grid(echo, 2)
    grid.silent = {101}
    began = time.monotonic()
    first = next(exchange(grid, [hello(100), hello(101)], Patience(FOR_EVER)))
    assert first.node_id == 100
    assert time.monotonic() - began < PATIENCE


def test_an_error_reply_belongs_to_the_node_that_was_asked(make_grid):
    def boom(msg, context):
        raise RuntimeError("boom")

    (arrival,) = exchange(make_grid(boom, 1), [hello(100)], Patience(FOR_EVER))
    assert arrival.node_id == 100
    assert arrival.message.has_error()


@pytest.mark.parametrize("lost", [None, "never-issued"])
def test_a_message_that_the_grid_did_not_take_is_not_waited_for(make_grid, lost, monkeypatch):
    grid = make_grid(echo, 2)
    push = grid.push_messages
    monkeypatch.setattr(grid, "push_messages", lambda messages: [push(messages)[0], lost])
    arrivals = list(exchange(grid, [hello(100), hello(101)], Patience(FOR_EVER)))
    assert [arrival.node_id for arrival in arrivals] == [100]


def test_enough_replies_and_the_grace_end_it(make_grid):
    """2 of 3 are enough: the third, which is silent, costs the grace and not the timeout."""
    grid = make_grid(echo, 3)
    grid.silent = {101}
    began = time.monotonic()
    messages = [hello(100), hello(101), hello(102)]
    heard = []
    for arrival in exchange(grid, messages, Patience(FOR_EVER, lambda: len(heard) >= 2, grace=0.2)):
        heard.append(arrival.node_id)
    assert sorted(heard) == [100, 102]
    assert 0.2 <= time.monotonic() - began < PATIENCE


def test_only_what_the_caller_calls_enough_is_enough(make_grid):
    """Of 3 clients the first is of no use to the caller: it is content with 1, and hears 2."""
    grid = make_grid(echo, 3)
    pull, ready = grid.pull_messages, {"1"}
    grid.pull_messages = lambda ids: pull(ready.intersection(ids))
    heard, useful = [], []
    messages = [hello(100), hello(101), hello(102)]
    for arrival in exchange(grid, messages, Patience(60, is_enough=lambda: bool(useful))):
        heard.append(arrival.node_id)
        ready.add("2")
        if arrival.node_id != 100:
            useful.append(arrival.node_id)
    assert heard == [100, 101]


def test_a_reply_whose_arrays_stall_holds_neither_the_others_nor_the_round(make_grid, monkeypatch):
    """Pulling the reply of node 101 blocks for an hour, as a stalled upload does."""
    grid = make_grid(echo, 3)
    pull = grid.pull_messages

    def stalling(ids):
        if any(grid.sent[1].metadata.message_id == i for i in ids):
            time.sleep(FOR_EVER)
        return pull(ids)

    monkeypatch.setattr(grid, "pull_messages", stalling)
    began = time.monotonic()
    messages = [hello(100), hello(101), hello(102)]
    arrivals = list(exchange(grid, messages, Patience(1.0)))
    assert sorted(arrival.node_id for arrival in arrivals) == [100, 102]
    assert time.monotonic() - began < PATIENCE


def test_a_grid_that_fails_is_an_error_and_not_a_wait(make_grid, monkeypatch):
    def broken(ids):
        raise ConnectionError("the link is down")

    grid = make_grid(echo, 1)
    monkeypatch.setattr(grid, "pull_messages", broken)
    with pytest.raises(ConnectionError, match="the link is down"):
        list(exchange(grid, [hello(100)], Patience(30)))


def test_a_grid_that_wakes_us_is_not_polled(make_grid):
    """wait_for_replies is called in place of any sleep, with what is left of the time."""
    grid = waking(make_grid(echo, 2))
    assert len(list(exchange(grid, [hello(100), hello(101)], Patience(FOR_EVER)))) == 2
    assert len(grid.asked) == 1
    assert FOR_EVER - PATIENCE < grid.asked[0] <= FOR_EVER


def test_a_reply_is_pulled_when_the_one_before_was_used(make_grid, monkeypatch):
    """3 replies are there at once: with 1 in the caller's hands, 1 was pulled."""
    grid = waking(make_grid(echo, 3))
    pull, pulled = grid.pull_messages, []
    monkeypatch.setattr(grid, "pull_messages", lambda ids: pulled.append(len(ids)) or pull(ids))
    counts = []
    for _ in exchange(grid, [hello(100 + k) for k in range(3)], Patience(FOR_EVER)):
        counts.append(list(pulled))
    assert counts == [[1], [1, 1], [1, 1, 1]]


def test_a_grid_that_must_be_asked_is_asked_for_no_more_than_its_8_threads_hold(
    make_grid, monkeypatch
):
    """Of 100 replies that are there at once, 8 are pulled while the caller has the first."""
    grid = make_grid(echo, 100)
    pull, pulled = grid.pull_messages, []
    monkeypatch.setattr(grid, "pull_messages", lambda ids: pulled.append(ids) or pull(ids))
    counts = []
    for _ in exchange(grid, [hello(100 + k) for k in range(100)], Patience(FOR_EVER)):
        if not counts:
            time.sleep(0.3)
        counts.append(len(pulled))
    assert counts[0] <= 8
    assert counts[1] <= 9
    assert len(counts) == 100


def test_threads_that_hold_a_reply_end_with_the_exchange(make_grid):
    """8 of 20 replies are held when the caller has had enough after the first."""
    before = threading.active_count()
    arrivals = exchange(
        make_grid(echo, 20), [hello(100 + k) for k in range(20)], Patience(FOR_EVER)
    )
    next(arrivals)
    arrivals.close()
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_what_is_not_waited_for_any_more_is_given_up(make_grid):
    """Node 101 is silent: when the time is up, the grid need not keep its late reply."""
    grid = waking(make_grid(echo, 2))
    grid.silent = {101}
    assert len(list(exchange(grid, [hello(100), hello(101)], Patience(0.1)))) == 1
    assert grid.given_up == ["2"]


def test_a_second_reply_to_one_message_is_not_used(make_grid, monkeypatch):
    """Node 100 answers twice, together with node 101: two arrivals, one of each."""
    grid = make_grid(echo, 2)
    pull = grid.pull_messages
    monkeypatch.setattr(grid, "pull_messages", lambda ids: [r for r in pull(ids) for _ in "ab"])
    arrivals = list(exchange(grid, [hello(100), hello(101)], Patience(FOR_EVER)))
    assert sorted(arrival.node_id for arrival in arrivals) == [100, 101]


def test_the_messages_are_on_their_way_before_the_first_reply_is_asked_for(make_grid):
    """What a server does between the two, it does while the clients train."""
    grid = make_grid(echo, 1)
    arrivals = exchange(grid, [hello(100)], Patience(FOR_EVER))
    assert grid.sent
    assert [arrival.node_id for arrival in arrivals] == [100]


def test_bytes_that_cannot_be_decoded_cost_no_other_reply(make_grid, monkeypatch):
    """What node 101 sent raises inside the pull, and what was pulled with it would be lost."""
    grid = make_grid(echo, 3)
    pull = grid.pull_messages

    def decoding(ids):
        replies = pull(ids)
        if any(reply.metadata.src_node_id == 101 for reply in replies):
            MetricRecord.inflate(b"MetricRecord  7\x00" + b"\xff" * 7)
        return replies

    monkeypatch.setattr(grid, "pull_messages", decoding)
    arrivals = exchange(grid, [hello(100), hello(101), hello(102)], Patience(FOR_EVER))
    came = {arrival.node_id: arrival.message for arrival in arrivals}
    assert came.keys() == {100, 101, 102}
    assert [node for node, message in came.items() if message.has_error()] == [101]
    assert came[101].error.code == UNREADABLE
    assert came[101].error.reason.startswith("DecodeError: ")
    assert came[101].metadata.src_node_id != 101  # these are not the client's own words


@pytest.mark.parametrize("broken", [httpx.ReadTimeout("late"), RunNotRunningException()])
def test_a_link_that_fails_is_no_reply_that_cannot_be_read(make_grid, monkeypatch, broken):
    def failing(ids):
        raise broken

    grid = make_grid(echo, 1)
    monkeypatch.setattr(grid, "pull_messages", failing)
    with pytest.raises(type(broken)):
        list(exchange(grid, [hello(100)], Patience(30)))


def test_whose_reply_it_is_does_not_depend_on_what_the_reply_says(make_grid):
    """Node 101 answers as if it had been asked what node 100 was asked."""

    def impostor(msg, context):
        reply = echo(msg, context)
        if context.node_id == 101:
            reply.metadata.__dict__["_reply_to_message_id"] = "1"
            reply.content["metrics"]["num-examples"] = 9
        return reply

    arrivals = exchange(make_grid(impostor, 2), [hello(100), hello(101)], Patience(FOR_EVER))
    said = {arrival.node_id: arrival.message.content["metrics"] for arrival in arrivals}
    assert {node: metrics["num-examples"] for node, metrics in said.items()} == {100: 1, 101: 9}


@pytest.mark.parametrize("wakes", [False, True])
def test_what_came_in_time_is_used_however_long_the_caller_takes(make_grid, wakes):
    """8 replies are there at once, and the caller takes 0.4 s for each: all came within 2 s."""
    grid = make_grid(echo, 8)
    if wakes:
        waking(grid)
    took = []
    for arrival in exchange(grid, [hello(100 + k) for k in range(8)], Patience(2.0)):
        took.append(arrival.seconds)
        time.sleep(0.4)
    assert len(took) == 8
    assert max(took) < 2.0


def test_replies_that_are_there_when_enough_have_come_are_used(make_grid):
    """All 4 are there at once: 1 is enough, and no grace takes back what has arrived."""
    grid = make_grid(echo, 4)
    heard = []
    for arrival in exchange(grid, [hello(100 + k) for k in range(4)], Patience(30, lambda: True)):
        heard.append(arrival.node_id)
        time.sleep(0.2)
    assert sorted(heard) == [100, 101, 102, 103]


def test_a_hundred_silent_clients_are_asked_for_few_times(make_grid, monkeypatch):
    """Each of 8 threads asks 3 times, and then they share 12 turns a second."""
    grid = make_grid(echo, 100)
    grid.silent = set(grid.contexts)
    pulls = []
    monkeypatch.setattr(grid, "pull_messages", lambda ids: pulls.append(len(ids)) or [])
    began = time.monotonic()
    assert list(exchange(grid, [hello(100 + k) for k in range(100)], Patience(1))) == []
    assert 10 <= len(pulls) <= 8 * 3 + 8 + 12.5 * (time.monotonic() - began)
    assert set(pulls) == {1}


def test_many_replies_at_once_are_taken_without_a_pause(make_grid, monkeypatch):
    """100 clients answer after 0.5 s: one is found by the pace, the others right behind it."""
    grid = make_grid(echo, 100)
    monkeypatch.setattr("fedwaggle.strategy.exchange._PAUSE_SECONDS", 0.5)
    pull, ready = grid.pull_messages, threading.Event()
    monkeypatch.setattr(grid, "pull_messages", lambda ids: pull(ids) if ready.is_set() else [])
    threading.Timer(0.5, ready.set).start()
    began = time.monotonic()
    assert (
        len(list(exchange(grid, [hello(100 + k) for k in range(100)], Patience(FOR_EVER)))) == 100
    )
    assert 0.5 <= time.monotonic() - began < 20  # with a pause for each it would be 50 s


def test_a_reply_that_comes_in_time_while_the_caller_is_busy_past_it_is_used(make_grid):
    """Node 101 answers while the caller takes 1.2 s for node 100; both have 1 s."""
    grid = make_grid(echo, 2)
    pull, ready = grid.pull_messages, {"1"}
    waking(grid)
    grid.pull_messages = lambda ids: pull(ready.intersection(ids))
    heard = []
    for arrival in exchange(grid, [hello(100), hello(101)], Patience(1.0)):
        heard.append(arrival.node_id)
        ready.add("2")
        time.sleep(1.2)
    assert heard == [100, 101]


def dying(grid, deaths: dict[int, int], code: int = 8):
    """Let the client processes of some nodes die so many times before one answers."""
    answer, left = grid._answer, dict(deaths)

    def answer_or_die(message):
        node = message.metadata.dst_node_id
        if left.get(node, 0) > 0:
            left[node] -= 1
            return Message(Error(code, "ClientApp stopped responding."), reply_to=message)
        return answer(message)

    grid._answer = answer_or_die
    return grid


@pytest.mark.parametrize("code", [0, 8])
def test_a_client_whose_process_died_is_asked_once_more(make_grid, code: int):
    grid = dying(make_grid(echo, 3), {101: 1}, code)
    arrivals = list(exchange(grid, [hello(100), hello(101), hello(102)], Patience(FOR_EVER)))
    assert sorted(arrival.node_id for arrival in arrivals) == [100, 101, 102]
    assert not any(arrival.message.has_error() for arrival in arrivals)
    first, again = (m for m in grid.sent if m.metadata.dst_node_id == 101)
    assert again.content is first.content


def test_one_that_dies_again_has_died(make_grid):
    grid = dying(make_grid(echo, 2), {100: 9, 101: 9})
    arrivals = list(exchange(grid, [hello(100), hello(101)], Patience(FOR_EVER)))
    assert [arrival.message.error.code for arrival in arrivals] == [8, 8]
    assert len(grid.sent) == 4


def test_an_engine_that_asks_again_by_itself_is_not_told_to(make_grid):
    grid = waking(dying(make_grid(echo, 1), {100: 1}))
    (arrival,) = exchange(grid, [hello(100)], Patience(FOR_EVER))
    assert arrival.message.error.code == 8
    assert len(grid.sent) == 1


def test_a_client_that_raised_has_answered(make_grid):
    grid = dying(make_grid(echo, 1), {100: 1}, code=2)
    (arrival,) = exchange(grid, [hello(100)], Patience(FOR_EVER))
    assert arrival.message.error.code == 2
