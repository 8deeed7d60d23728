"""Laws of the grids that the other tests of the strategy stand on."""

from __future__ import annotations

import threading

import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from fedwaggle.strategy.exchange import Patience, exchange


def asked(node_id: int) -> Message:
    content = RecordDict({"config": ConfigRecord()})
    return Message(content, dst_node_id=node_id, message_type=MessageType.TRAIN)


def echo(msg, context):
    return Message(RecordDict(), reply_to=msg)


@pytest.mark.parametrize(
    ("options", "order"),
    [({"in_order": True}, [100, 101, 102]), ({"reverse": True}, [102, 101, 100])],
)
def test_replies_arrive_in_the_order_that_a_test_asks_for(make_grid, options, order):
    """Whatever the order of the questions: here 101, 100, 102."""
    questions = [asked(101), asked(100), asked(102)]
    grid = make_grid(echo, 3, **options)
    assert [one.node_id for one in exchange(grid, questions, Patience(60))] == order
    assert grid.arrived == order
    grid = make_grid(echo, 3, **options)
    assert [one.metadata.src_node_id for one in grid.send_and_receive(questions)] == order


def test_no_reply_arrives_without_time_for_it(make_grid):
    """One is enough, without a grace: the second is not there at the last look."""
    grid = make_grid(echo, 3, in_order=True)
    arrivals = exchange(grid, [asked(100), asked(101), asked(102)], Patience(60, lambda: True))
    assert [one.node_id for one in arrivals] == [100]


@pytest.mark.parametrize("options", [{}, {"in_order": True}])
def test_a_silent_node_does_not_answer_and_holds_no_other(make_grid, options):
    grid = make_grid(echo, 3, **options)
    grid.silent = {100}
    arrivals = exchange(grid, [asked(100), asked(101), asked(102)], Patience(0.5))
    assert sorted(one.node_id for one in arrivals) == [101, 102]


def test_one_client_answers_at_a_time(make_grid):
    """8 threads pull the replies of 40 clients, and no two clients are at work at once."""
    at_work, most = threading.Lock(), []

    def client(msg, context):
        most.append(at_work.acquire(blocking=False))
        threading.Event().wait(0.002)  # long enough for the other threads to come
        at_work.release()
        return echo(msg, context)

    grid = make_grid(client, 40)
    assert len(list(exchange(grid, [asked(100 + k) for k in range(40)], Patience(60)))) == 40
    assert most == [True] * 40
