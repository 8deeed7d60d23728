"""Laws of decisions that are taken from metadata."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedwaggle.errors import ConfigError
from fedwaggle.metadata import pack
from fedwaggle.runs import Request, Run, open_folder
from fedwaggle.runs.reading import current_events, read_events
from fedwaggle.strategy import ClientUpdate, RestStragglers, StopWhenConverged, Waggle


@dataclass(frozen=True)
class Facts:
    """What these clients say."""

    training_time: float
    converged: bool


class Strategy(Waggle[Facts], FedAvg):
    """The plainest one."""


def said(**clients: tuple[float, bool]) -> list[ClientUpdate[Facts]]:
    return [
        ClientUpdate(name, 1, 1, Facts(*facts), None, {}, 1, 0.1, 10)
        for name, facts in clients.items()
    ]


def names(updates: list[ClientUpdate[Facts]]) -> list[str]:
    return [update.client for update in updates]


def test_the_run_ends_when_enough_have_converged_in_enough_rounds_in_a_row() -> None:
    """Of 4 clients, 3, 2, 3, 3 say so; 75 % in 2 rounds in a row are there in the fourth."""
    policy = StopWhenConverged[Facts](lambda facts: facts.converged, share=0.75, rounds=2)
    state, stops = {}, []
    for count in (3, 2, 3, 3):
        updates = said(**{f"c{n}": (1.0, n < count) for n in range(4)})
        decisions, state = policy.decide(1, names(updates), updates, state)
        stops.append([decision.stop for decision in decisions])
    assert stops == [[], [], [], [True]]


def test_a_round_without_updates_ends_nothing() -> None:
    policy = StopWhenConverged[Facts](lambda facts: facts.converged, rounds=1)
    assert policy.decide(1, ["a", "b"], [], {}) == ([], {"rounds_in_a_row": 0})


def test_who_takes_three_times_the_median_rests() -> None:
    """Times 1, 2, 2, 7: the median is 2, and only 7 is more than 6."""
    policy = RestStragglers[Facts](lambda facts: facts.training_time, factor=3.0, rest_rounds=2)
    updates = said(a=(1, False), b=(2, False), c=(2, False), d=(7, False))
    ((decision,), _) = policy.decide(4, names(updates), updates, {})
    assert (decision.clients, decision.rest_rounds) == (("d",), 2)
    assert "took 7 s" in decision.reason


def test_a_time_below_zero_counts_as_zero_and_sends_nobody_to_rest() -> None:
    """-100 s and 1 s: the median is 0.5 s, and 1 s is not more than 1.5."""
    policy = RestStragglers[Facts](lambda facts: facts.training_time, factor=3.0)
    updates = said(liar=(-100.0, False), honest=(1.0, False))
    assert policy.decide(1, names(updates), updates, {}) == ([], {})


@pytest.mark.parametrize(
    "make",
    [
        lambda: StopWhenConverged(bool, share=0),
        lambda: StopWhenConverged(bool, rounds=0),
        lambda: RestStragglers(float, factor=1.0),
        lambda: RestStragglers(float, rest_rounds=0),
    ],
)
def test_what_cannot_work_is_refused(make) -> None:
    with pytest.raises(ConfigError):
        make()


def client(msg, context):
    part = context.node_config["partition-id"]
    server_round = msg.content["config"]["server-round"]
    content = {
        "arrays": ArrayRecord({"w": Array(np.full(1, server_round, np.float32))}),
        "metrics": MetricRecord({"num-examples": 1}),
        "metadata": pack(Facts(100.0 if part == 3 else 1.0, converged=server_round >= 3)),
    }
    return Message(RecordDict(content), reply_to=msg)


def events(run: Run):
    return current_events(read_events(run.path / "events.jsonl"))


def start(run, grid, rounds, fail_in=None):
    def evaluate(server_round, arrays):
        if server_round == fail_in:
            raise RuntimeError("the power is off")
        return MetricRecord({"accuracy": 0.5})

    policies = [
        RestStragglers[Facts](lambda facts: facts.training_time, rest_rounds=2),
        StopWhenConverged[Facts](lambda facts: facts.converged, rounds=2),
    ]
    strategy = Strategy(run=run, policies=policies, fraction_evaluate=0.0)
    initial = ArrayRecord({"w": Array(np.zeros(1, np.float32))})
    return strategy.start(grid, initial, rounds, evaluate_fn=evaluate)


def test_decisions_are_carried_out_and_recorded_with_their_reasons(make_grid, tmp_path):
    """Client 3 rests in rounds 2 and 3; all say converged from round 3, so round 4 is the last."""
    with Run.create(tmp_path) as run:
        start(run, make_grid(client, 4), 10)
    cohorts = [sorted(e.clients) for e in events(run) if e.event == "round-started"]
    assert cohorts == [list("0123"), list("012"), list("012"), list("0123")]
    decisions = [e for e in events(run) if e.event == "decision-taken"]
    assert [(e.round, e.policy, e.clients) for e in decisions] == [
        (1, "rest-stragglers", ["3"]),
        (4, "rest-stragglers", ["3"]),
        (4, "stop-when-converged", ["0", "1", "2", "3"]),
    ]
    assert "4 of 4 clients have converged" in decisions[2].reason
    assert events(run)[-1].event == "run-finished"
    assert events(run)[-1].rounds == 4


def test_clients_that_did_not_report_it_count_as_not_converged(make_grid, tmp_path):
    """Of 4, 0 converges; 1 withholds its metadata, 2 is silent, 3 sends NaN: 25 %, not 50 %."""

    def train(msg, context):
        reply = client(msg, context)
        reply.content["metadata"] = pack(Facts(1.0, converged=True))
        part = context.node_config["partition-id"]
        if part == 1:
            del reply.content["metadata"]
        if part == 3:
            reply.content["arrays"]["w"] = Array(np.full(1, np.nan, np.float32))
        return reply

    def decisions(root, share):
        grid = make_grid(train, 4)
        grid.silent = {102}
        policies = [StopWhenConverged[Facts](lambda facts: facts.converged, share=share, rounds=1)]
        with Run.create(root) as run:
            strategy = Strategy(run=run, policies=policies, fraction_evaluate=0.0)
            initial = ArrayRecord({"w": Array(np.zeros(1, np.float32))})
            strategy.start(grid, initial, 1, timeout=1.0)
        return [e.reason for e in events(run) if e.event == "decision-taken"]

    assert decisions(tmp_path / "half", 0.5) == []
    (reason,) = decisions(tmp_path / "quarter", 0.25)
    assert reason.startswith("1 of 4 clients have converged, and at least 25%")


def test_a_resumed_run_decides_as_one_that_was_not_interrupted(make_grid, tmp_path):
    with Run.create(tmp_path / "a", request=Request()) as run:
        start(run, make_grid(client, 4), 10)
    whole = [(e.event, e.round) for e in events(run) if hasattr(e, "round")]
    with (
        pytest.raises(RuntimeError),
        Run.create(tmp_path / "b", request=Request()) as run,
    ):
        start(run, make_grid(client, 4), 10, fail_in=4)
    with open_folder(tmp_path / "b", request=Request(), resume="latest") as run:
        start(run, make_grid(client, 4), 10)
    resumed = [(e.event, e.round) for e in events(run) if hasattr(e, "round")]
    assert [pair for pair in resumed if pair[0] != "run-resumed"] == whole
