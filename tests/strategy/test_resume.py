"""Laws of going on: a run that was interrupted ends as one that was not, to the bit."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedYogi,
    QFedAvg,
)

from fedwaggle.errors import NodesError, RunError
from fedwaggle.runs import Request, Run, open_run
from fedwaggle.runs.events import current_events, read_events
from fedwaggle.strategy import RoundRules, Waggle

NODES = 5


@dataclass(frozen=True)
class Facts:
    """What these clients say."""

    training_time: float


def record(values: np.ndarray) -> ArrayRecord:
    return ArrayRecord({"w": Array(values.astype(np.float32))})


def drift(msg, context):
    """Move the weights by a step that depends on the client, the round and the client's seed."""
    config = msg.content["config"]
    part = context.node_config["partition-id"]
    rng = np.random.default_rng(config["seed"])
    new = 0.9 * msg.content["arrays"]["w"].numpy() + rng.normal(size=8) * (part + 1)
    calls = context.state.config_records.get("calls")
    metrics = MetricRecord({"train_loss": float(abs(new).mean()), "num-examples": part + 1})
    assert calls is None
    return Message(RecordDict({"arrays": record(new), "metrics": metrics}), reply_to=msg)


def evaluate(server_round, arrays):
    return MetricRecord({"accuracy": float(np.sin(arrays["w"].numpy().sum()))})


def facts(run_path: Path) -> dict:
    events = current_events(read_events(run_path / "events.jsonl"))
    rounds = [e for e in events if e.event == "round-finished"]
    (end,) = [e for e in events if e.event == "run-finished"]
    return {
        "sha256": end.sha256,
        "best": end.best,
        "metrics": [(e.round, e.metrics, e.train_metrics) for e in rounds],
        "cohorts": [e.clients for e in events if e.event == "round-started"],
        "best.pth": (run_path / "best.json").read_text(),
    }


def run_rounds(run, base, grid, rounds, *, fail_in=None, **options):
    """Run a strategy; in round ``fail_in`` it raises after the step, before the commit."""

    class Strategy(Waggle[Facts], base):
        def on_round_end(self, summary):
            self.said = summary.server_round

    def evaluating(server_round, arrays):
        if server_round == fail_in:
            raise RuntimeError("the power is off")
        return evaluate(server_round, arrays)

    strategy = Strategy(run=run, seed=3, fraction_train=0.6, fraction_evaluate=0.0, **options)
    return strategy.start(grid, record(np.linspace(-1, 1, 8)), rounds, evaluate_fn=evaluating)


@pytest.mark.parametrize(
    "base", [FedAvg, FedAvgM, FedAdagrad, FedAdam, FedYogi, FedMedian, QFedAvg]
)
def test_interrupted_in_round_3_and_resumed_it_is_the_same_run(make_grid, tmp_path, base):
    """5 rounds in one go, and 2 rounds, a crash in the third, then on to 5 with another order."""
    options = {"server_momentum": 0.9} if base is FedAvgM else {}
    if base is QFedAvg:
        options = {"client_learning_rate": 0.1, "q": 0.5}
    with Run.create(tmp_path / "a", request=Request()) as run:
        run_rounds(run, base, make_grid(drift, NODES), 5, **options)
    whole = run.path
    with (
        pytest.raises(RuntimeError, match="the power is off"),
        Run.create(tmp_path / "b", request=Request()) as run,
    ):
        run_rounds(run, base, make_grid(drift, NODES), 5, fail_in=3, **options)
    with open_run(tmp_path / "b", request=Request(), resume="latest") as run:
        run_rounds(run, base, make_grid(drift, NODES, reverse=True), 5, **options)
    assert facts(run.path) == facts(whole)


def test_a_run_that_crashed_before_its_first_resume_point_begins_anew(make_grid, tmp_path):
    with Run.create(tmp_path / "a", request=Request()) as run:
        run_rounds(run, FedAvg, make_grid(drift, NODES), 2)
    whole = run.path
    with pytest.raises(RuntimeError), Run.create(tmp_path / "b", request=Request()) as run:
        run_rounds(run, FedAvg, make_grid(drift, NODES), 2, fail_in=0)
    with open_run(tmp_path / "b", request=Request(), resume="latest") as run:
        run_rounds(run, FedAvg, make_grid(drift, NODES), 2)
    assert facts(run.path) == facts(whole)


def test_more_rounds_go_on_as_if_they_had_been_asked_for_at_once(make_grid, tmp_path):
    with Run.create(tmp_path / "a", request=Request()) as run:
        run_rounds(run, FedAdam, make_grid(drift, NODES), 5)
    whole = run.path
    with Run.create(tmp_path / "b", request=Request(config={"num-server-rounds": 3})) as run:
        run_rounds(run, FedAdam, make_grid(drift, NODES), 3)
    request = Request(config={"num-server-rounds": 5})
    with open_run(tmp_path / "b", request=request, resume=run.name) as run:
        run_rounds(run, FedAdam, make_grid(drift, NODES), 5)
    assert facts(run.path) == facts(whole)


def test_a_damaged_resume_point_costs_one_more_round(make_grid, tmp_path, caplog):
    with Run.create(tmp_path / "a", request=Request()) as run:
        run_rounds(run, FedAdagrad, make_grid(drift, NODES), 4)
    before = facts(run.path)
    last = run.path / "snapshots" / "round-000004.safetensors"
    last.write_bytes(last.read_bytes()[:-5])
    with (
        caplog.at_level(logging.WARNING, logger="flwr"),
        open_run(tmp_path / "a", request=Request(), resume="latest") as run,
    ):
        run_rounds(run, FedAdagrad, make_grid(drift, NODES), 4)
    assert "damaged" in caplog.text
    assert facts(run.path) == before


def test_what_clients_keep_goes_into_the_resume_point(make_grid, tmp_path):
    """A grid that holds its clients' states gets them back."""
    grid = make_grid(drift, NODES)
    grid.client_states = lambda: {"3": b"three"}
    with Run.create(tmp_path, request=Request()) as run:
        run_rounds(run, FedAvg, grid, 1)
    restored = {}
    grid = make_grid(drift, NODES)
    grid.restore_client_states = restored.update
    with open_run(tmp_path, request=Request(), resume="latest") as run:
        run_rounds(run, FedAvg, grid, 2)
    assert restored == {"3": b"three"}


# -- What may change, and what may not


def test_a_changed_key_that_decides_the_model_is_refused_by_name(tmp_path):
    old = Request(config={"lr": 0.1, "batch-size": 8, "num-server-rounds": 3})
    new = Request(config={"lr": 0.2, "batch-size": 9, "num-server-rounds": 5, "tracker": "wandb"})
    with Run.create(tmp_path, request=old):
        pass
    with pytest.raises(RunError) as caught:
        open_run(tmp_path, request=new, resume="latest")
    said = str(caught.value)
    assert "lr: was 0.1, is 0.2" in said
    assert "batch-size: was 8, is 9" in said
    assert "num-server-rounds" not in said
    assert "--fork" in said


def test_a_fork_is_a_new_run_from_the_resume_point_with_another_config(make_grid, tmp_path):
    """Forked after round 2 with another step size: rounds 1 and 2 are the same, round 3 not."""
    with Run.create(tmp_path, name="old", request=Request(config={"eta": 0.1})) as run:
        run_rounds(run, FedAdam, make_grid(drift, NODES), 2, eta=0.1)
    old = run.path
    before = (old / "events.jsonl").read_bytes()
    request = Request(config={"eta": 0.5})
    with open_run(tmp_path, name="new", request=request, resume=str(old), fork=True) as run:
        run_rounds(run, FedAdam, make_grid(drift, NODES), 3, eta=0.5)
    assert run.path != old
    assert (old / "events.jsonl").read_bytes() == before
    assert facts(run.path)["metrics"][:3] == facts(old)["metrics"]
    resumed = [e for e in read_events(run.path / "events.jsonl") if e.event == "run-resumed"]
    assert [(e.round, e.changes) for e in resumed] == [(2, {"eta": [0.1, 0.5]})]
    with Run.create(tmp_path, name="straight", request=Request()) as straight:
        run_rounds(straight, FedAdam, make_grid(drift, NODES), 3, eta=0.1)
    assert facts(straight.path)["sha256"] != facts(run.path)["sha256"]


def test_a_run_that_another_process_writes_is_not_opened_twice(tmp_path):
    with Run.create(tmp_path, request=Request()), pytest.raises(RunError, match="another process"):
        open_run(tmp_path, request=Request(), resume="latest")


def test_a_run_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RunError):
        open_run(tmp_path, request=Request(), resume="latest")


# -- Rounds that come to nothing


def test_skipped_rounds_keep_the_model_and_end_the_run_with_a_resumable_state(make_grid, tmp_path):
    """Clients fail from round 2 on: after 3 skipped rounds the run ends; later it goes on."""
    broken = {"now": False}

    def moody(msg, context):
        if msg.content["config"]["server-round"] >= 2 and broken["now"]:
            raise RuntimeError("out of order")
        return drift(msg, context)

    with Run.create(tmp_path / "a", request=Request()) as run:
        run_rounds(run, FedAvg, make_grid(moody, NODES), 1)
    after_one = facts(run.path)["sha256"]
    broken["now"] = True
    with (
        pytest.raises(NodesError, match=r"max-skipped-rounds: 3 rounds in a row"),
        Run.create(tmp_path / "b", request=Request()) as run,
    ):
        run_rounds(run, FedAvg, make_grid(moody, NODES), 9, rules=RoundRules(cooldown_after=0))
    events = list(read_events(run.path / "events.jsonl"))
    assert [e.skipped for e in events if e.event == "round-finished"] == [0, 0, 1, 1, 1]
    assert events[-1].event == "run-failed"
    broken["now"] = False
    with open_run(tmp_path / "b", request=Request(), resume="latest") as run:
        result = run_rounds(run, FedAvg, make_grid(moody, NODES), 4)
    assert facts(run.path)["sha256"] == after_one
    assert result.arrays["w"].numpy().shape == (8,)
