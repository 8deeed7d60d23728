"""Strategies whose replies are not the model's arrays: growing trees, SCAFFOLD, counting."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    FedXgbBagging,
    FedXgbCyclic,
    Krum,
)

from fedwaggle.errors import ConfigError, NodesError, RunError
from fedwaggle.runs import Request, Run, open_folder
from fedwaggle.runs.reading import read_events
from fedwaggle.strategy import OutlierRule, RoundRules, Waggle

NAN = float("nan")
WEIGHT = MetricRecord({"num-examples": 1})


class Bagging(Waggle, FedXgbBagging):
    """Trees of all clients, appended."""


class Cyclic(Waggle, FedXgbCyclic):
    """Trees that go from client to client."""


def part(context) -> int:
    return context.node_config["partition-id"]


def events(run: Run, kind: str) -> list:
    return [e for e in read_events(run.path / "events.jsonl") if e.event == kind]


def quarantined(run: Run) -> dict[str, str]:
    return {e.client: e.code for e in events(run, "client-quarantined")}


def w(*values) -> ArrayRecord:
    return ArrayRecord({"w": Array(np.array(values, np.float32))})


# -- Trees -----------------------------------------------------------------------------------------


def trees(*names: str) -> bytes:
    """Return trees as XGBoost saves them, with a name in place of splits and leaves."""
    model = {
        "gbtree_model_param": {"num_trees": str(len(names)), "num_parallel_tree": "1"},
        "trees": [{"id": i, "name": name} for i, name in enumerate(names)],
        "tree_info": [0] * len(names),
        "iteration_indptr": list(range(len(names) + 1)),
    }
    return json.dumps({"learner": {"gradient_booster": {"model": model}}}).encode()


def as_record(model: bytes) -> ArrayRecord:
    return ArrayRecord([np.frombuffer(model, np.uint8)])


def names_in(arrays: ArrayRecord) -> list[str]:
    model = json.loads(arrays["0"].numpy().tobytes())["learner"]["gradient_booster"]["model"]
    return [tree["name"] for tree in model["trees"]]


def grow(msg, context):
    """Send one new tree, named after the round and the client."""
    name = f"{msg.content['config']['server-round']}.{part(context)}"
    return Message(RecordDict({"arrays": as_record(trees(name)), "m": WEIGHT}), reply_to=msg)


def extend(msg, context):
    """Send the model that came, with one new tree, named after the client."""
    sent = msg.content["arrays"]
    before = names_in(sent) if sent["0"].numpy().size else []
    model = as_record(trees(*before, str(part(context))))
    return Message(RecordDict({"arrays": model, "m": WEIGHT}), reply_to=msg)


BAD_TREES = [
    b"junk",
    b"[" * 100_000,
    b"{}",
    trees("x").replace(b'"num_trees": "1"', b'"num_trees": "x"'),
    trees("x").replace(b'"num_parallel_tree": "1"', b'"num_parallel_tree": "9"'),
    trees("x").replace(b"[0, 1]", b"[]"),
]


def test_bagged_trees_are_flowers_and_whatever_cannot_be_appended_is_quarantined(
    make_grid, tmp_path
):
    """2 rounds of 3 good clients, and of bad ones before and behind them, from no trees at all."""

    def train(msg, context):
        bad = part(context) - 3
        reply = grow(msg, context)
        if 0 <= bad < len(BAD_TREES):
            reply.content["arrays"] = as_record(BAD_TREES[bad])
        elif bad == len(BAD_TREES):
            reply.content["arrays"] = ArrayRecord([np.array([NAN])])
        elif bad == len(BAD_TREES) + 1:
            reply.content["more"] = as_record(trees("x"))
        elif bad == len(BAD_TREES) + 2:
            reply.content["arrays"] = ArrayRecord({"1": reply.content["arrays"]["0"]})
        return reply

    begin, options = as_record(b""), {"fraction_evaluate": 0.0}
    stock = FedXgbBagging(**options).start(make_grid(grow, 3), begin, 2).arrays
    with Run.create(tmp_path) as run:
        strategy = Bagging(run=run, **options)
        ours = strategy.start(make_grid(train, 12, reverse=True), begin, 2).arrays
    assert names_in(ours) == ["1.0", "1.1", "1.2", "2.0", "2.1", "2.2"]
    assert Counter(names_in(stock)) == Counter(names_in(ours))
    codes = ["wrong-format"] * 6 + ["not-finite", "two-array-records", "unknown-key"]
    assert quarantined(run) == {str(3 + i): code for i, code in enumerate(codes)}


@pytest.mark.parametrize(("strategy_class", "train"), [(Bagging, grow), (Cyclic, extend)])
def test_a_model_that_grows_is_resumed_to_the_same_bytes(
    make_grid, tmp_path, strategy_class, train
):
    """4 rounds in one go, and 2 rounds, a crash, then on to 4 with nodes that have other ids."""

    def run_rounds(run, grid, rounds, fail_in=None):
        def evaluate(server_round, arrays):
            if server_round == fail_in:
                raise RuntimeError("the power is off")

        strategy = strategy_class(run=run, seed=3, fraction_evaluate=0.0)
        return strategy.start(grid, as_record(b""), rounds, evaluate_fn=evaluate).arrays

    def other_ids(grid):
        grid.contexts = {500 - node_id: context for node_id, context in grid.contexts.items()}
        return grid

    with Run.create(tmp_path / "a", request=Request()) as run:
        whole = run_rounds(run, make_grid(train, 3), 4)
    with pytest.raises(RuntimeError), Run.create(tmp_path / "b", request=Request()) as run:
        run_rounds(run, make_grid(train, 3), 4, fail_in=3)
    with open_folder(tmp_path / "b", request=Request(), resume="latest") as run:
        resumed = run_rounds(run, other_ids(make_grid(train, 3)), 4)
    assert resumed["0"].data == whole["0"].data
    assert len(names_in(whole)) == {Bagging: 12, Cyclic: 4}[strategy_class]
    if strategy_class is Cyclic:
        assert names_in(whole) == ["0", "1", "2", "0"]  # in the order of the names


def test_trees_cannot_be_clipped_or_given_a_fixed_model(make_grid):
    class Private(Waggle, DifferentialPrivacyServerSideFixedClipping):
        pass

    with pytest.raises(ConfigError, match="FedXgbBagging: its model grows"):
        Private(
            strategy=FedXgbBagging(),
            noise_multiplier=1.0,
            clipping_norm=1.0,
            num_sampled_clients=2,
        )
    with pytest.raises(ConfigError, match="Cyclic: its model grows"):
        Cyclic(fixed_model=True)
    grid = make_grid(grow, 2)
    with pytest.raises(ConfigError, match="expected one array, under '0', got 2"):
        Bagging().start(grid, ArrayRecord([np.zeros(1), np.zeros(1)]), 1)
    assert grid.sent == []


# -- A step of the user's own ----------------------------------------------------------------------


class Scaffold(Waggle, FedAvg):
    """Each reply has the model under "arrays" and the client's control variate beside it."""

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        controls = [reply.content["control"]["c"].numpy() for reply in replies]
        self.control = np.mean(controls, axis=0)
        for reply in replies:
            del reply.content["control"]
        return super().aggregate_train(server_round, replies)


def test_a_step_over_two_records_gets_both_and_the_model_is_checked_all_the_same(
    make_grid, tmp_path, caplog
):
    """Clients 0 and 1 are good: (1 + 5) / 2 = 3, and controls of 10 and 20 give 15.

    Client 6 has no control, and would end the run where the step reads it.
    """

    def train(msg, context):
        k = part(context)
        control = {"c": Array(np.array([10.0 * (k + 1)]))}
        model = [w(1.0), w(5.0), w(NAN), w(1.0, 1.0), w(1.0), w(1.0), w(1.0)][k]
        if k == 4:
            control = {"c": Array(np.array([NAN]))}
        if k == 5:
            control["c"].data = control["c"].data[:-1]
        records = {"control": ArrayRecord(control), "arrays": model, "metrics": WEIGHT}
        if k == 6:
            del records["control"]
        return Message(RecordDict(records), reply_to=msg)

    with Run.create(tmp_path) as run, caplog.at_level("WARNING", logger="flwr"):
        rules = RoundRules(outliers=OutlierRule(share=0))  # 5 is out of line with 1
        strategy = Scaffold(run=run, fraction_evaluate=0.0, rules=rules)
        arrays = strategy.start(make_grid(train, 7), w(0.0), 1).arrays
    assert "left out of the step (clients: 6)" in caplog.text
    assert arrays["w"].numpy().tolist() == [3.0]
    assert strategy.control.tolist() == [15.0]
    assert quarantined(run) == {
        "2": "not-finite",
        "3": "wrong-shape",
        "4": "not-finite",
        "5": "wrong-size",
    }


class Mine(Waggle, FedAvg):
    """A step that keeps what it was given."""

    def aggregate_train(self, server_round, replies):
        self.replies = list(replies)
        return self.result


@pytest.mark.parametrize("with_metrics", [True, False])
def test_a_step_may_read_no_arrays_at_all_and_leave_the_model_as_it_is(
    make_grid, tmp_path, with_metrics
):
    """Federated counting: 5 rounds of it are 5 rounds, not skipped ones."""

    def train(msg, context):
        records = {"counts": ConfigRecord({"seen": part(context)})}
        if with_metrics:
            records["metrics"] = WEIGHT
        return Message(RecordDict(records), reply_to=msg)

    with Run.create(tmp_path) as run:
        strategy = Mine(run=run, fixed_model=False, fraction_evaluate=0.0)
        strategy.result = (None, MetricRecord({"total": 3}))
        result = strategy.start(make_grid(train, 3, reverse=True), ArrayRecord(), 5)
    assert [reply.content["counts"]["seen"] for reply in strategy.replies] == [0, 1, 2]
    assert dict(result.train_metrics_clientapp[5]) == {"total": 3}
    assert [e.num_examples for e in events(run, "client-updated")] == [1] * 15
    assert not any(e.skipped for e in events(run, "round-finished"))


def test_a_step_may_read_other_arrays_than_the_models_and_bad_ones_are_quarantined(
    make_grid, tmp_path
):
    """Clients send logits, and the step trains the model on them; 32 bytes is what fits."""

    def train(msg, context):
        k = part(context)
        sizes = {3: 1000}
        logits = np.full(sizes.get(k, 2), NAN if k == 2 else k, np.float32)
        record = ArrayRecord({"logits": Array(logits)})
        if k == 4:
            record["logits"] = Array(np.array(["a"]))
        if k == 5:
            record["logits"] = Array("float32", (2,), "numpy.ndarray", b"\x93NUMPY")
        return Message(RecordDict({"predictions": record}), reply_to=msg)

    with Run.create(tmp_path) as run:
        rules = RoundRules(fold_buffer=500)
        strategy = Mine(run=run, fixed_model=False, fraction_evaluate=0.0, rules=rules)
        strategy.result = (w(7.0), None)
        arrays = strategy.start(make_grid(train, 6), w(0.0), 1).arrays
    assert arrays["w"].numpy().tolist() == [7.0]
    sent = [r.content["predictions"]["logits"].numpy().tolist() for r in strategy.replies]
    assert sent == [[0.0, 0.0], [1.0, 1.0]]
    assert quarantined(run) == {
        "2": "not-finite",
        "3": "too-large",
        "4": "wrong-dtype",
        "5": "wrong-format",
    }


def test_a_step_that_gets_no_reply_is_advised_how_to_get_them(make_grid):
    def train(msg, context):
        return Message(RecordDict({"counts": ConfigRecord({"seen": 1})}), reply_to=msg)

    strategy = Mine(fraction_evaluate=0.0)
    with pytest.raises(NodesError, match="pass fixed_model=False"):
        strategy.start(make_grid(train, 2), w(0.0), 1)


@pytest.mark.parametrize("base", [FedAvg, Krum])
def test_only_a_step_of_ones_own_can_do_without_the_models_arrays(base):
    strategy_class = type("Plain", (Waggle, base), {})
    with pytest.raises(ConfigError, match="fixed_model: expected True or None for Plain"):
        strategy_class(fixed_model=False)


def test_a_step_of_ones_own_finds_the_records_under_the_names_that_most_clients_use(make_grid):
    def train(msg, context):
        names = ("a", "m") if part(context) == 0 else ("weights", "numbers")
        return Message(RecordDict({names[0]: w(1.0), names[1]: WEIGHT}), reply_to=msg)

    strategy = Mine(fraction_evaluate=0.0)
    strategy.result = (w(1.0), None)
    strategy.start(make_grid(train, 3), w(0.0), 1)
    assert [sorted(reply.content) for reply in strategy.replies] == [["numbers", "weights"]] * 3


def test_a_step_of_ones_own_may_ask_fewer_clients_than_it_waits_for(make_grid):
    class First(Mine):
        def configure_train(self, server_round, arrays, config, grid):
            return list(super().configure_train(server_round, arrays, config, grid))[:1]

    def train(msg, context):
        return Message(RecordDict({"arrays": w(1.0), "metrics": WEIGHT}), reply_to=msg)

    strategy = First(fraction_evaluate=0.0, min_train_nodes=3)
    strategy.result = (w(2.0), None)
    assert strategy.start(make_grid(train, 3), w(0.0), 1).arrays["w"].numpy() == 2.0


def test_a_fixed_model_is_still_not_gone_on_with_as_another(make_grid, tmp_path):
    def train(msg, context):
        return Message(RecordDict({"arrays": w(1.0), "metrics": WEIGHT}), reply_to=msg)

    class Plain(Waggle, FedAvg):
        pass

    with Run.create(tmp_path, request=Request()) as run:
        Plain(run=run, fraction_evaluate=0.0).start(make_grid(train, 2), w(0.0), 1)
    with (
        open_folder(tmp_path, request=Request(), resume="latest") as run,
        pytest.raises(RunError, match="another model"),
    ):
        Plain(run=run, fraction_evaluate=0.0).start(make_grid(train, 2), w(0.0, 0.0), 2)
