"""The law: a run that cannot be repeated from its seed reports this wherever one looks."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg

from fedwaggle.metadata import pack
from fedwaggle.runs import Request, Run, load, open_folder
from fedwaggle.runs.report import write_report
from fedwaggle.strategy import RestStragglers, RoundRules, Waggle


@dataclass(frozen=True)
class Facts:
    """What these clients say."""

    training_time: float


class WaggleAvg(Waggle[Facts], FedAvg):
    """The plainest strategy."""


class Private(Waggle, DifferentialPrivacyServerSideFixedClipping):
    """One whose noise has no seed."""


def client(msg, context):
    content = {
        "arrays": ArrayRecord({"w": Array(msg.content["arrays"]["w"].numpy() + np.float32(1.0))}),
        "metrics": MetricRecord({"num-examples": 1}),
        "metadata": pack(Facts(1.0)),
    }
    return Message(RecordDict(content), reply_to=msg)


def start(strategy, grid, rounds=2, timeout=60.0):
    return strategy.start(grid, ArrayRecord({"w": Array(np.zeros(1, np.float32))}), rounds, timeout)


def request_of(run):
    return json.loads((run.path / "run.json").read_text())


def reasons(run):
    """Return why a run is not repeatable, after a look that record, run.json and report agree."""
    record, request = load(run.path), request_of(run)
    assert record.repeatable == request["repeatable"] == (not record.not_repeatable)
    assert list(record.not_repeatable) == list(request["not_repeatable"].values())
    page = write_report(run.path).read_text()
    assert page.count("<li>Not repeatable ") == len(record.not_repeatable)
    return request["not_repeatable"]


def test_a_run_that_depends_on_its_seed_alone_is_repeatable(make_grid, tmp_path):
    with Run.create(tmp_path) as run:
        start(WaggleAvg(run=run, fraction_evaluate=0.0), make_grid(client, 2))
    assert reasons(run) == {}


def test_a_client_without_a_name_in_round_1_makes_the_run_one_that_cannot_be_repeated(
    make_grid, tmp_path, caplog
):
    """Client 1 does not answer the first question for its name. In round 2 it has one."""
    questions = []

    def answers(message):
        if not message.metadata.message_type.startswith("query"):
            return True
        questions.append(message.metadata.dst_node_id)
        return questions.count(101) != 1 or message.metadata.dst_node_id != 101

    grid = make_grid(client, 3)
    grid._answers = answers
    with Run.create(tmp_path) as run, caplog.at_level(logging.WARNING, logger="flwr"):
        rules = RoundRules(node_timeout=0.5)
        start(WaggleAvg(run=run, rules=rules, fraction_evaluate=0.0), grid, rounds=3)
    cohorts = [sorted(each.clients) for each in load(run.path).rounds[1:]]
    assert cohorts == [["0", "2", "node-101"], ["0", "1", "2"], ["0", "1", "2"]]
    (reason,) = reasons(run).values()
    assert reason.startswith("1 of 3 clients have no stable name (node-101)")
    assert caplog.text.count("not repeatable: 1 of 3 clients have no stable name") == 1
    assert "Not repeatable from round 1 on: 1 of 3" in (run.path / "report.html").read_text()


def test_each_cause_is_stated_once_however_often_it_comes(make_grid, tmp_path):
    """Client 2 is silent in both rounds, and a policy reads times."""
    grid = make_grid(client, 3)
    grid.silent = {102}
    with Run.create(tmp_path) as run:
        policies = [RestStragglers(lambda facts: facts.training_time)]
        options = {"policies": policies, "fraction_evaluate": 0.0}
        start(WaggleAvg(run=run, **options), grid, timeout=1.0)
    told = reasons(run)
    assert sorted(told) == ["replies", "times"]
    assert told["replies"].startswith("in round 1, clients that were asked did not answer in time")
    assert "1 to train (2)" in told["replies"]
    assert told["times"].startswith("rest-stragglers reads training times")


def test_the_noise_of_differential_privacy_is_a_cause(make_grid, tmp_path):
    inner = FedAvg(fraction_evaluate=0.0)
    options = {"noise_multiplier": 0.1, "clipping_norm": 1.0, "num_sampled_clients": 2}
    with Run.create(tmp_path) as run:
        start(Private(strategy=inner, run=run, **options), make_grid(client, 2), rounds=1)
    assert list(reasons(run)) == ["noise"]


@pytest.mark.parametrize("fork", [False, True])
@pytest.mark.parametrize(("silent_in", "told"), [(1, ["replies"]), (3, [])])
def test_a_resume_keeps_the_causes_of_the_rounds_that_it_keeps(
    make_grid, tmp_path, fork, silent_in, told
):
    """Client 2 is silent in round 1 or 3; in round 3 the power fails, and it is run again."""

    def silent(message):
        config = message.content.get("config", {})
        is_train = message.metadata.message_type == "train"
        late = is_train and config["server-round"] == silent_in
        return not (late and message.metadata.dst_node_id == 102)

    class Failing(WaggleAvg):
        def on_round_end(self, summary):
            if summary.server_round == 3:
                (self.run.path / "snapshots" / "round-000003.safetensors").unlink()
                raise RuntimeError("the power is off")

    grid = make_grid(client, 3)
    grid._answers = silent
    with pytest.raises(RuntimeError), Run.create(tmp_path, request=Request()) as run:
        start(Failing(run=run, fraction_evaluate=0.0), grid, rounds=3, timeout=1.0)
    assert list(reasons(run)) == ["replies"]
    with open_folder(tmp_path, request=Request(), resume="latest", fork=fork) as run:
        start(WaggleAvg(run=run, fraction_evaluate=0.0), make_grid(client, 3), rounds=3)
    assert load(run.path).rounds_done == 3
    assert list(reasons(run)) == told
