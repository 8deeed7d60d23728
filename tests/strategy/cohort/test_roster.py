"""Laws of names, of rest, and of the draw."""

from __future__ import annotations

import random
import threading
import time

import pytest
from flwr.app import Message, MetricRecord, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp.strategy.strategy_utils import sample_nodes

from fedwaggle.errors import NodesError
from fedwaggle.strategy.cohort.attendance import Attendance
from fedwaggle.strategy.cohort.roster import Roster, RosterGrid, names_of, seeded_sampling
from waiting import PATIENCE


def echo(msg, context):
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=msg)


def drawn_from(grid, *, resting=(), enough=2, node_timeout=5.0):
    roster = Roster(grid)
    return roster, RosterGrid(
        roster, resting=set(resting), enough=enough, node_timeout=node_timeout
    )


def test_partition_ids_are_asked_for_once_and_order_the_nodes_by_counting(make_grid):
    """12 nodes whose ids fall while their partition ids rise: 0, 1, 2, ... 10, 11."""
    grid = make_grid(echo, 12)
    grid.contexts = dict(
        zip(sorted(grid.contexts, reverse=True), grid.contexts.values(), strict=True)
    )
    roster, drawn = drawn_from(grid)
    in_order = [roster.name(n) for n in drawn.get_node_ids()]
    assert in_order == [str(n) for n in range(12)]
    asked = grid._ids.__next__()
    drawn.get_node_ids()
    assert grid._ids.__next__() == asked + 1  # no message in between


def test_names_of_the_engine_are_taken_without_asking(make_grid):
    grid = make_grid(echo, 2, names=["site-b", "site-a"])
    roster, drawn = drawn_from(grid)
    assert [roster.name(n) for n in drawn.get_node_ids()] == ["site-a", "site-b"]
    assert next(grid._ids) == 1


def test_clients_that_cannot_say_who_they_are_are_asked_once_and_make_the_draw_a_chance(make_grid):
    grid = make_grid(echo, 2)
    grid.app._registered_funcs.pop("query.identity", None)
    roster, drawn = drawn_from(grid)
    assert roster.why_not_repeatable() is None
    names = {roster.name(n) for n in drawn.get_node_ids()}
    assert names == {"node-100", "node-101"}
    assert roster.why_not_repeatable().startswith(
        "2 of 2 clients have no stable name (node-100, node-101), so"
    )
    assert "answer_identity(app)" in roster.why_not_repeatable()
    asked = next(grid._ids)
    roster.ask_again()
    assert next(grid._ids) == asked + 1  # no message in between


def held_back(grid, node_id, gates):
    """Hold back what a node answers to its questions, each until its gate (an Event) is open."""
    pull, gate_of = grid.pull_messages, {}

    def pulling(ids):
        for one in ids:
            message = grid._inbox.get(one)
            asked = message is not None and message.metadata.dst_node_id == node_id
            if asked and one not in gate_of:
                gate_of[one] = gates[len(gate_of)]
        return pull([one for one in ids if one not in gate_of or gate_of[one].is_set()])

    grid.pull_messages = pulling


def test_names_are_waited_for_as_long_as_nodes(make_grid):
    """Node 101 answers after 0.5 s: with 60 s to wait it has its name at once."""
    grid, gate = make_grid(echo, 2), threading.Event()
    held_back(grid, 101, [gate])
    threading.Timer(0.5, gate.set).start()
    roster = Roster(grid, 60.0)
    assert [roster.name(n) for n in roster.refresh()] == ["0", "1"]


@pytest.mark.parametrize("opened", [0, 1])
def test_a_client_that_did_not_answer_is_asked_again_and_takes_its_place(make_grid, opened):
    """It answers the first question late, or the second one where the first was lost."""
    grid, gates = make_grid(echo, 3), [threading.Event(), threading.Event()]
    held_back(grid, 101, gates)
    roster = Roster(grid, 0.2)
    assert [roster.name(n) for n in roster.refresh()] == ["0", "2", "node-101"]
    assert "1 have not answered so far: raise node-timeout" in roster.why_not_repeatable()
    gates[opened].set()
    roster.ask_again()
    assert [roster.name(n) for n in roster.refresh()] == ["0", "1", "2"]
    assert roster.why_not_repeatable() is None


def test_no_client_can_take_anothers_name():
    """A name that the engine vouches for, or that two claim, is given to no claimant."""
    assert names_of({1: "a"}, {2: "a", 3: "b", 4: "b", 5: "c"}) == {
        1: "a",
        2: "node-2",
        3: "node-3",
        4: "node-4",
        5: "c",
    }


def test_the_same_seed_draws_the_same_names_from_other_node_ids(make_grid):
    """Flower's own sample_nodes, 5 of 10, over two sets of node ids."""

    def draw(ids, seed):
        grid = make_grid(echo, 10)
        grid.contexts = dict(zip(ids, grid.contexts.values(), strict=True))
        roster, drawn = drawn_from(grid)
        with seeded_sampling(seed):
            chosen, _ = sample_nodes(drawn, 2, 5)
        return [roster.name(n) for n in chosen]

    shuffled = [907, 3, 55, 12, 808, 44, 61, 999, 7, 100]
    assert draw(range(100, 110), 1) == draw(shuffled, 1)
    assert draw(range(100, 110), 1) != draw(range(100, 110), 2)


def test_the_callers_random_numbers_are_not_disturbed():
    random.seed(5)
    expected = [random.random() for _ in range(3)]
    random.seed(5)
    got = [random.random()]
    with seeded_sampling(1):
        random.random()
    got += [random.random(), random.random()]
    assert got == expected


def test_a_client_that_rests_is_left_out_unless_too_few_are_there(make_grid):
    roster, drawn = drawn_from(make_grid(echo, 3), resting={"1"}, enough=2)
    assert [roster.name(n) for n in drawn.get_node_ids()] == ["0", "2"]
    assert drawn.left_out == ["1"]
    roster, drawn = drawn_from(make_grid(echo, 3), resting={"1"}, enough=3)
    assert [roster.name(n) for n in drawn.get_node_ids()] == ["0", "1", "2"]
    assert drawn.left_out == []


def test_waiting_for_nodes_ends_with_who_is_there_and_how_many_are_needed(make_grid):
    """Flower's loop waits without end for 3 nodes where there are 2."""
    _, drawn = drawn_from(make_grid(echo, 2), enough=3, node_timeout=0.5)
    with pytest.raises(NodesError, match=r"expected 3 nodes, got 2 \(0, 1\) after 1 s"):
        sample_nodes(drawn, 3, 3)


def test_an_answer_clears_the_misses():
    """Missed, answered, missed: with 2 misses in a row needed, nobody rests."""
    state = Attendance()
    for server_round, answered in ((1, []), (2, ["7"]), (3, [])):
        silent = [] if answered else ["7"]
        state = state.after(server_round, answered, silent, rest_after=2, rest_rounds=5)
    assert state.resting(4) == set()
    assert dict(state.misses) == {"7": 1}


def test_nodes_that_register_late_are_waited_for_as_many_as_there_are_partitions(make_grid):
    """Of 4 nodes one more is there at each look: the draw begins when all 4 are."""
    grid = make_grid(echo, 4)
    everyone, looks = list(grid.contexts), []
    grid.get_node_ids = lambda: looks.append(1) or everyone[: len(looks)]
    grid.get_nodes = lambda: [NodeInfo(node_id=n) for n in everyone]
    roster = Roster(grid)
    roster.gather(10)
    assert len(looks) >= 4
    assert [roster.name(n) for n in roster.refresh()] == ["0", "1", "2", "3"]


def test_nodes_that_never_come_are_not_waited_for_without_end(make_grid):
    grid = make_grid(echo, 4)
    there = list(grid.contexts)[:2]
    grid.get_node_ids = lambda: there
    began = time.monotonic()
    Roster(grid).gather(0.3)
    assert 0.3 <= time.monotonic() - began < PATIENCE


def test_a_stand_in_for_a_name_cannot_be_claimed():
    """Node 100 says nothing; node 101 calls itself what node 100 is called then."""
    assert names_of({}, {100: "", 101: "node-100"}) == {100: "node-100", 101: "node-101"}
    assert names_of({1: "node-a"}, {2: "node-b"}) == {1: "node-a", 2: "node-b"}


def test_a_name_that_two_supernodes_registered_is_nobodys(make_grid):
    """They are asked instead, and say 0 and 1."""
    roster, drawn = drawn_from(make_grid(echo, 3, names=["site", "site", "site-c"]))
    assert [roster.name(n) for n in drawn.get_node_ids()] == ["0", "1", "site-c"]


@pytest.mark.parametrize("names", [[], ["site-a", "site-b", "site-b"]])
def test_a_node_that_starts_again_has_its_name_under_a_new_id(make_grid, names):
    """Node 101 goes, and comes back as node 102, which says or is registered as the same."""
    grid = make_grid(echo, 3, names=names)
    grid.contexts[102].node_config["partition-id"] = 1
    everyone, gone = grid.contexts, [102, 101]
    grid.get_node_ids = lambda: [n for n in everyone if n != gone[0]]
    grid.get_nodes = lambda: [n for n in type(grid).get_nodes(grid) if n.node_id != gone[0]]
    roster = Roster(grid)
    first = [roster.name(n) for n in roster.refresh()]
    gone.pop(0)
    assert [roster.name(n) for n in roster.refresh()] == first
    assert roster.refresh() == [100, 102]


def test_a_client_that_does_not_say_who_it_is_is_no_missing_node(make_grid, monkeypatch):
    """Node 101 never answers, for longer than the wait for nodes, and both nodes are there."""
    grid = make_grid(echo, 2)
    monkeypatch.setattr(grid, "_answers", lambda message: message.metadata.dst_node_id != 101)
    roster = Roster(grid, 1.0)
    drawn = RosterGrid(roster, resting=set(), enough=2, node_timeout=0.5)
    assert [roster.name(n) for n in drawn.get_node_ids()] == ["0", "node-101"]
