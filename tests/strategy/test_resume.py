"""Laws of going on: a run that was interrupted ends as one that was not, to the bit."""

from __future__ import annotations

import logging
import os
import resource
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.exception import PrivacyBudgetExhausted
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedYogi,
    QFedAvg,
)
from flwr.supercore.privacy_accounting import (
    NeighboringRelation,
    PrivacyConfig,
    PrivacySpent,
    SamplingMethod,
)

from fedwaggle.errors import NodesError, RunError
from fedwaggle.metadata import pack
from fedwaggle.runs import Request, Run, load, open_folder, opening
from fedwaggle.runs.best_model import model_sha256, read_model
from fedwaggle.runs.checkpoints import read_latest_snapshot, write_snapshot
from fedwaggle.runs.reading import current_events, read_events
from fedwaggle.strategy import RoundRules, StopWhenConverged, Waggle

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
    with open_folder(tmp_path / "b", request=Request(), resume="latest") as run:
        run_rounds(run, base, make_grid(drift, NODES, reverse=True), 5, **options)
    assert facts(run.path) == facts(whole)


def test_a_run_that_crashed_before_its_first_resume_point_begins_anew(make_grid, tmp_path):
    with Run.create(tmp_path / "a", request=Request()) as run:
        run_rounds(run, FedAvg, make_grid(drift, NODES), 2)
    whole = run.path
    with pytest.raises(RuntimeError), Run.create(tmp_path / "b", request=Request()) as run:
        run_rounds(run, FedAvg, make_grid(drift, NODES), 2, fail_in=0)
    with open_folder(tmp_path / "b", request=Request(), resume="latest") as run:
        run_rounds(run, FedAvg, make_grid(drift, NODES), 2)
    assert facts(run.path) == facts(whole)


def test_more_rounds_go_on_as_if_they_had_been_asked_for_at_once(make_grid, tmp_path):
    with Run.create(tmp_path / "a", request=Request()) as run:
        run_rounds(run, FedAdam, make_grid(drift, NODES), 5)
    whole = run.path
    with Run.create(tmp_path / "b", request=Request(config={"num-server-rounds": 3})) as run:
        run_rounds(run, FedAdam, make_grid(drift, NODES), 3)
    request = Request(config={"num-server-rounds": 5})
    with open_folder(tmp_path / "b", request=request, resume=run.name) as run:
        run_rounds(run, FedAdam, make_grid(drift, NODES), 5)
    assert facts(run.path) == facts(whole)


def test_to_go_on_with_other_nodes_is_refused_and_leaves_the_record_as_it_was(make_grid, tmp_path):
    """A client's part of the data follows from its number and from how many there are."""
    grid = make_grid(drift, NODES)
    grid.engine_name = "local"
    with Run.create(tmp_path, request=Request()) as run:
        run_rounds(run, FedAvg, grid, 1)
    fewer = make_grid(drift, NODES - 1)
    fewer.engine_name = "local"
    with (
        pytest.raises(RunError, match=f"the run has {NODES}, and now there are {NODES - 1}"),
        open_folder(tmp_path, request=Request(), resume="latest") as run,
    ):
        run_rounds(run, FedAvg, fewer, 2)
    assert [e for e in read_events(run.path / "events.jsonl") if e.event == "run-resumed"] == []
    with open_folder(tmp_path, request=Request(), resume="latest", fork=True) as run:
        run_rounds(run, FedAvg, fewer, 2)
    assert load(run.path).status == "finished"


def test_to_go_on_with_another_model_is_refused_by_name(make_grid, tmp_path):
    with Run.create(tmp_path, request=Request()) as run:
        run_rounds(run, FedAvg, make_grid(drift, NODES), 1)

    class Strategy(Waggle[Facts], FedAvg):
        pass

    with (
        pytest.raises(RunError, match=r"1 arrays differ, such as 'w': float32\[8\] there"),
        open_folder(tmp_path, request=Request(), resume="latest") as run,
    ):
        Strategy(run=run).start(make_grid(drift, NODES), record(np.zeros(9)), 2)


def test_fewer_rounds_than_there_are_is_told_to_be_nothing_to_do(make_grid, tmp_path, caplog):
    with Run.create(tmp_path, request=Request()) as run:
        run_rounds(run, FedAvg, make_grid(drift, NODES), 2)
    with (
        caplog.at_level(logging.WARNING),
        open_folder(tmp_path, request=Request(), resume="latest") as run,
    ):
        run_rounds(run, FedAvg, make_grid(drift, NODES), 1)
    assert "nothing to do: the run has 2 rounds, and 1 are asked for" in caplog.text


def test_a_damaged_resume_point_costs_one_more_round(make_grid, tmp_path, caplog):
    with Run.create(tmp_path / "a", request=Request()) as run:
        run_rounds(run, FedAdagrad, make_grid(drift, NODES), 4)
    before = facts(run.path)
    last = run.path / "snapshots" / "round-000004.safetensors"
    last.write_bytes(last.read_bytes()[:-5])
    with (
        caplog.at_level(logging.WARNING, logger="flwr"),
        open_folder(tmp_path / "a", request=Request(), resume="latest") as run,
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
    with open_folder(tmp_path, request=Request(), resume="latest") as run:
        run_rounds(run, FedAvg, grid, 2)
    assert restored == {"3": b"three"}


# -- What a strategy holds


def test_a_resume_uses_the_settings_that_it_is_given(make_grid, tmp_path):
    """Round 1 without settings; then with metadata, a rate, policies and trainable names."""

    class Strategy(Waggle[Facts], FedAdagrad):
        def on_train_metadata(self, server_round, updates):
            return {"seen": len(updates)}

        def on_round_end(self, summary):
            self.said = summary.server_round

    def speaking(msg, context):
        reply = drift(msg, context)
        reply.content["metadata"] = pack(Facts(1.0))
        return reply

    class Silent(Waggle, FedAdagrad):
        pass

    def start(run, rounds, cls, **settings):
        strategy = cls(run=run, fraction_evaluate=0.0, **settings)
        initial = ArrayRecord({**record(np.zeros(8)), "b": Array(np.zeros(1, np.float32))})
        strategy.start(make_grid(both, NODES), initial, rounds)
        return strategy

    def both(msg, context):
        reply = speaking(msg, context)
        reply.content["arrays"]["b"] = Array(np.full(1, 8.0, np.float32))
        return reply

    settings = {
        "learning_rate": lambda server_round: 0.25,
        "policies": [StopWhenConverged(lambda facts: True, rounds=1)],
        "trainable": ["w"],
        "max_metadata_bytes": 4096,
    }
    with Run.create(tmp_path, request=Request()) as run:
        start(run, 1, Silent)
    with open_folder(tmp_path, request=Request(), resume="latest") as run:
        strategy = start(run, 9, Strategy, **settings)
    rounds = {each.round: each for each in load(run.path).rounds}
    assert rounds[2].train_metrics["seen"] == NODES
    assert rounds[2].learning_rate == 0.25
    assert [d.policy for d in rounds[2].decisions] == ["stop-when-converged"]
    assert read_model(run.path / "final.pth")["b"].tolist() == [8.0]  # the mean, not a step
    assert (strategy.max_metadata_bytes, strategy.said) == (4096, 2)


def test_numbers_of_a_resume_point_never_replace_what_is_no_number(make_grid, tmp_path):
    """An attribute that was None, and is an accountant or a function now, stays."""

    class Strategy(Waggle, FedAvg):
        def __init__(self, hook, **options):
            super().__init__(**options)
            self.hook, self.rounds = hook, []

        def on_round_end(self, summary):
            self.rounds.append(summary.server_round)

    def start(run, rounds, hook):
        strategy = Strategy(hook, run=run, fraction_evaluate=0.0)
        strategy.start(make_grid(drift, NODES), record(np.zeros(8)), rounds)
        return strategy

    with Run.create(tmp_path, request=Request()) as run:
        start(run, 1, None)
    with open_folder(tmp_path, request=Request(), resume="latest") as run:
        strategy = start(run, 2, print)
    assert strategy.hook is print
    assert strategy.rounds == [0, 2]  # round 1 was still to be added where the point was written


def test_a_resume_with_another_seed_is_refused_by_name(make_grid, tmp_path):
    def start(run, rounds, seed):
        strategy = type("Strategy", (Waggle, FedAvg), {})(run=run, seed=seed)
        strategy.start(make_grid(drift, NODES), record(np.zeros(8)), rounds)

    with Run.create(tmp_path, request=Request()) as run:
        start(run, 1, 3)
    with (
        pytest.raises(RunError, match=r"begun with seed 3, and the strategy now has 4; .*seed=3"),
        open_folder(tmp_path, request=Request(), resume="latest") as run,
    ):
        start(run, 2, 4)


class Ledger:
    """A privacy accountant of Flower's kind, whose epsilon is the number of releases."""

    def __init__(self, max_epsilon):
        self.releases = 0
        self.config = PrivacyConfig(
            target_delta=1e-5,
            population_size=NODES,
            neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
            sampling_method=SamplingMethod.NO_AMPLIFICATION,
            max_epsilon=max_epsilon,
        )

    def compose(self, event, count=1):
        self.releases += count

    def would_exceed(self, event, max_epsilon=None, count=1):
        return self.releases + count > self.config.max_epsilon

    def get_privacy_spent(self, delta=None):
        return PrivacySpent(float(self.releases), 1e-5, self.releases, "count")

    def state_dict(self):
        return {"releases": self.releases, "max_epsilon": self.config.max_epsilon}

    def load_state_dict(self, state):
        if state["max_epsilon"] != self.config.max_epsilon:
            raise ValueError("another budget")
        self.releases = state["releases"]


class Private(Waggle, DifferentialPrivacyServerSideFixedClipping):
    """Noise on the server, and a budget for it."""


def equal_weights(msg, context):
    metrics = MetricRecord({"num-examples": 1})
    content = {"arrays": record(msg.content["arrays"]["w"].numpy() + 1), "metrics": metrics}
    return Message(RecordDict(content), reply_to=msg)


def spend(run, grid, rounds, ledger):
    inner = FedAvg(fraction_evaluate=0.0, min_available_nodes=NODES)
    strategy = Private(
        run=run,
        strategy=inner,
        noise_multiplier=1.0,
        clipping_norm=1.0,
        num_sampled_clients=NODES,
        accountant=ledger,
    )
    strategy.start(grid, record(np.zeros(8)), rounds)


@pytest.mark.parametrize("fork", [False, True])
def test_a_privacy_budget_goes_on_where_it_was(make_grid, tmp_path, fork):
    """A budget of 4 releases, 3 of them spent: of 6 rounds, only the fourth is left."""
    with Run.create(tmp_path, request=Request()) as run:
        spend(run, make_grid(equal_weights, NODES), 3, Ledger(4))
    ledger = Ledger(4)
    with (
        pytest.raises(PrivacyBudgetExhausted),
        open_folder(tmp_path, request=Request(), resume="latest", fork=fork) as run,
    ):
        spend(run, make_grid(equal_weights, NODES), 6, ledger)
    assert ledger.releases == 4


def test_a_fork_with_another_privacy_budget_is_refused_by_name(make_grid, tmp_path):
    with Run.create(tmp_path, request=Request()) as run:
        spend(run, make_grid(equal_weights, NODES), 1, Ledger(4))
    with (
        pytest.raises(RunError, match=r"strategy\.accountant: .*another budget"),
        open_folder(tmp_path, request=Request(), resume="latest", fork=True) as run,
    ):
        spend(run, make_grid(equal_weights, NODES), 2, Ledger(9))


def test_torch_modules_on_a_strategy_are_its_own_affair(make_grid, tmp_path, caplog):
    """Tensors are not kept, and a resume says so; an optimizer without any is; a class is none."""

    class Strategy(Waggle, FedAvg):
        def __init__(self, **options):
            super().__init__(**options)
            self.net, self.kind = torch.nn.Linear(1, 1), torch.nn.Linear
            self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.5)
            self.optimizer.param_groups[0]["lr"] = 0.5 if options["run"].resumed is None else 0.1

    def start(run, rounds):
        strategy = Strategy(run=run, fraction_evaluate=0.0)
        strategy.start(make_grid(drift, NODES), record(np.zeros(8)), rounds)
        return strategy

    with Run.create(tmp_path, request=Request()) as run:
        start(run, 1)
    with (
        caplog.at_level(logging.WARNING, logger="flwr"),
        open_folder(tmp_path, request=Request(), resume="latest") as run,
    ):
        assert start(run, 2).optimizer.param_groups[0]["lr"] == 0.5
    assert "strategy.net: begins anew" in caplog.text
    assert "optimizer" not in caplog.text


# -- The best model


def start_judged(run, grid, judged, rounds=4):
    """Run a strategy whose models are as good as ``judged`` says, by round."""

    class Strategy(Waggle, FedAvg):
        pass

    def evaluating(server_round, arrays):
        return MetricRecord({"accuracy": judged[server_round]})

    strategy = Strategy(run=run, seed=3, fraction_evaluate=0.0)
    return strategy.start(grid, record(np.linspace(-1, 1, 8)), rounds, evaluate_fn=evaluating)


def killed(do):
    """Do something in a process of its own that is to kill itself on the way."""
    child = os.fork()
    if child == 0:
        try:
            do()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def killed_before_its_resume_point(root, grid, judged, doomed):
    """Run until a round is recorded, and its resume point not begun."""
    rounds = iter(range(doomed + 1))

    def dying():
        if next(rounds) == doomed:
            os.kill(os.getpid(), signal.SIGKILL)
        return {}

    def run_rounds():
        grid.client_states = dying  # asked for just before each resume point
        with Run.create(root, request=Request()) as run:
            start_judged(run, grid, judged)

    killed(run_rounds)


def assert_best_is_whole(run_path, best):
    assert model_sha256(read_model(run_path / "best.pth")) == best.sha256
    assert (run_path / "best.json").read_text() == best.model_dump_json(indent=2) + "\n"


@pytest.mark.parametrize("fork", [False, True])
@pytest.mark.parametrize("doomed", [1, 3])
def test_killed_after_a_best_model_and_before_its_resume_point_it_never_was(
    make_grid, tmp_path, doomed, fork
):
    """The doomed round is the best, 0.9; repeated, it is not. The best is as if it had not been."""
    judged = {0: 0.2, 1: 0.1, 2: 0.3, 3: 0.15, 4: 0.25} if doomed == 1 else RISEN_AND_FALLEN
    with Run.create(tmp_path / "a", request=Request()) as run:
        start_judged(run, make_grid(drift, NODES), judged, doomed)
    whole = facts(run.path)
    killed_before_its_resume_point(
        tmp_path / "b", make_grid(drift, NODES), {**judged, doomed: 0.9}, doomed
    )
    with open_folder(tmp_path / "b", request=Request(), resume="latest", fork=fork) as run:
        start_judged(run, make_grid(drift, NODES), judged, doomed)
    assert facts(run.path) == whole
    assert_best_is_whole(run.path, whole["best"])


RISEN_AND_FALLEN = {0: 0.1, 1: 0.5, 2: 0.3, 3: 0.4, 4: 0.2}


def test_without_a_resume_point_there_is_no_best_model_to_begin_with(make_grid, tmp_path):
    """Killed in round 0 with a best model on disk; the run that begins anew judges none."""
    killed_before_its_resume_point(tmp_path, make_grid(drift, NODES), {0: 0.9}, 0)
    (best,) = tmp_path.glob("*/best.pth")
    with open_folder(tmp_path, request=Request(), resume="latest"):
        assert not best.exists()
        assert not best.with_name("best.json").exists()


def test_a_damaged_resume_point_gives_the_best_model_of_the_one_before(make_grid, tmp_path):
    """Rounds 3 and 4 are new bests, and 4's resume point is damaged: 3 is the best again."""
    judged = {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4, 4: 0.5}
    with Run.create(tmp_path, request=Request()) as run:
        start_judged(run, make_grid(drift, NODES), judged)
    (run.path / "snapshots" / "round-000004.safetensors").write_bytes(b"damaged")
    with open_folder(tmp_path, request=Request(), resume="latest") as run:
        start_judged(run, make_grid(drift, NODES), {**judged, 4: 0.35})
    best = facts(run.path)["best"]
    assert (best.round, best.value) == (3, 0.4)
    assert_best_is_whole(run.path, best)


def test_a_best_model_that_is_nowhere_to_be_found_is_said_and_given_up(make_grid, tmp_path, caplog):
    """Both names of round 1's model are gone: the run goes on without, and round 3 is the best."""
    with Run.create(tmp_path, request=Request()) as run:
        start_judged(run, make_grid(drift, NODES), RISEN_AND_FALLEN, 2)
    for model in [run.path / "best.pth", *run.path.glob("snapshots/*.pth")]:
        model.unlink()
    with (
        caplog.at_level(logging.WARNING, logger="flwr"),
        open_folder(tmp_path, request=Request(), resume="latest") as run,
    ):
        start_judged(run, make_grid(drift, NODES), RISEN_AND_FALLEN)
    assert "the best model (round 1) is lost" in caplog.text
    best = facts(run.path)["best"]
    assert (best.round, best.value) == (3, 0.4)
    assert_best_is_whole(run.path, best)


# -- The record


@pytest.mark.parametrize("room_again", [False, True])
def test_a_resume_point_never_stands_for_a_round_that_is_not_on_record(
    make_grid, tmp_path, room_again
):
    """Round 2's events find no room, and the run is killed after it: no round is missing."""

    class Dying(Waggle, FedAvg):
        def on_round_end(self, summary):
            if summary.server_round == 2:
                os.kill(os.getpid(), signal.SIGKILL)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def run_rounds():
        grid = make_grid(drift, NODES)
        with Run.create(tmp_path, request=Request()) as run:
            events = run.path / "events.jsonl"  # by now longer than a resume point is

            def filling(server_round, arrays):
                if server_round == 2:
                    limit(events.stat().st_size + 10)

            def emptying():
                if room_again:
                    limit(resource.RLIM_INFINITY)
                return {}

            grid.client_states = emptying  # asked for just before each resume point
            strategy = Dying(run=run, seed=3, fraction_evaluate=0.0)
            strategy.start(grid, record(np.linspace(-1, 1, 8)), 3, evaluate_fn=filling)

    killed(run_rounds)
    with open_folder(tmp_path, request=Request(), resume="latest") as run:
        latest = read_latest_snapshot(run.path)
        result = start_judged(run, make_grid(drift, NODES), {3: 0.5, 2: 0.5}, 3)
    assert latest.server_round == (2 if room_again else 1)
    assert list(result.train_metrics_clientapp) == [1, 2, 3]
    assert [told[0] for told in facts(run.path)["metrics"]] == [0, 1, 2, 3]


# -- What may change, and what may not


def test_a_changed_key_that_decides_the_model_is_refused_by_name(tmp_path):
    old = Request(config={"lr": 0.1, "batch-size": 8, "num-server-rounds": 3})
    new = Request(config={"lr": 0.2, "batch-size": 9, "num-server-rounds": 5, "tracker": "wandb"})
    with Run.create(tmp_path, request=old):
        pass
    with pytest.raises(RunError) as caught:
        open_folder(tmp_path, request=new, resume="latest")
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
    with open_folder(tmp_path, name="new", request=request, resume=str(old), fork=True) as run:
        run_rounds(run, FedAdam, make_grid(drift, NODES), 3, eta=0.5)
    assert run.path != old
    assert (old / "events.jsonl").read_bytes() == before
    assert facts(run.path)["metrics"][:3] == facts(old)["metrics"]
    resumed = [e for e in read_events(run.path / "events.jsonl") if e.event == "run-resumed"]
    assert [(e.round, e.changes) for e in resumed] == [(2, {"eta": [0.1, 0.5]})]
    with Run.create(tmp_path, name="straight", request=Request()) as straight:
        run_rounds(straight, FedAdam, make_grid(drift, NODES), 3, eta=0.1)
    assert facts(straight.path)["sha256"] != facts(run.path)["sha256"]


def test_a_fork_of_a_run_that_goes_on_has_every_round_once(make_grid, tmp_path, monkeypatch):
    """Round 4 is committed just after round 3 was read: the fork has a round 4 of its own."""
    with Run.create(tmp_path, name="old", request=Request()) as run:
        run_rounds(run, FedAvg, make_grid(drift, NODES), 3)
    old = run.path

    def then_it_goes_on(path):
        snapshot = read_latest_snapshot(path)
        write_snapshot(path, replace(snapshot, server_round=4))
        return snapshot

    monkeypatch.setattr(opening, "read_latest_snapshot", then_it_goes_on)
    with open_folder(tmp_path, name="new", request=Request(), resume=str(old), fork=True) as run:
        run_rounds(run, FedAvg, make_grid(drift, NODES), 5)
    assert [told[0] for told in facts(run.path)["metrics"]] == [0, 1, 2, 3, 4, 5]


def test_a_run_that_another_process_writes_is_not_opened_twice(tmp_path):
    with Run.create(tmp_path, request=Request()), pytest.raises(RunError, match="another process"):
        open_folder(tmp_path, request=Request(), resume="latest")


def test_a_run_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RunError):
        open_folder(tmp_path, request=Request(), resume="latest")


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
    with open_folder(tmp_path / "b", request=Request(), resume="latest") as run:
        result = run_rounds(run, FedAvg, make_grid(moody, NODES), 4)
    assert facts(run.path)["sha256"] == after_one
    assert result.arrays["w"].numpy().shape == (8,)
