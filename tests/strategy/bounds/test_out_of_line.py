"""No client can own a model by a well-formed reply: the law of the bounds, on a grid.

Nine clients walk towards 1 and one of ten attacks. The model must be the one that the nine
alone would have made where the attack is far out of line, and close to it where it is bounded.
"""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdagrad, FedAvg, FedMedian, QFedAvg

from fedwaggle.runs import Run
from fedwaggle.runs.reading import read_events
from fedwaggle.strategy import RoundRules, Waggle
from fedwaggle.strategy.bounds.outliers import OutlierRule

ATTACKER = 3
CLIENTS = 10
SIZE = 4000  # elements; more than a row that is summed at once


def model() -> ArrayRecord:
    return ArrayRecord(
        {
            "w": Array(np.zeros(SIZE, np.float32)),
            "bn.running_var": Array(np.ones(3, np.float32)),
            "bn.num_batches_tracked": Array(np.array(0, np.int64)),
        }
    )


def client(attack=None, count=None, in_rounds=range(100), metrics=None):
    """Return a train function: half of the way to 1, with noise; the attacker's is spoiled."""

    def train(msg, context) -> Message:
        part = context.node_config["partition-id"]
        config = msg.content["config"]
        attacks = part == ATTACKER and config["server-round"] in in_rounds
        if attacks and attack == "absent":
            raise RuntimeError("absent")
        rng = np.random.default_rng(config["seed"])
        old = {key: array.numpy() for key, array in msg.content["arrays"].items()}
        new = dict(old)
        noise = rng.normal(scale=0.1, size=SIZE).astype(np.float32)
        new["w"] = old["w"] + np.float32(0.5) * (1 - old["w"]) + noise
        if "bn.running_var" in old:
            new["bn.running_var"] = old["bn.running_var"] + np.float32(0.1)
            new["bn.num_batches_tracked"] = old["bn.num_batches_tracked"] + 10
        if attacks and attack is not None:
            new = {**new, **attack(new, old)}
        numbers = {"train_loss": 0.5, "num-examples": 60}
        if attacks:
            numbers |= {"num-examples": count or 60, **(metrics or {})}
        content = {
            "arrays": ArrayRecord({key: Array(np.asarray(a)) for key, a in new.items()}),
            "metrics": MetricRecord(numbers),
        }
        return Message(RecordDict(content), reply_to=msg)

    return train


def on_weights(change):
    return lambda new, old: {"w": change(new["w"], old["w"]).astype(np.float32)}


FAR_OUT = {
    "1e15": on_weights(lambda new, old: np.full_like(new, 1e15)),
    "1e30": on_weights(lambda new, old: np.full_like(new, 1e30)),
    "change x 1000": on_weights(lambda new, old: old + 1000 * (new - old)),
    "change x -1000": on_weights(lambda new, old: old - 1000 * (new - old)),
}
WITHIN = {
    "change reversed": on_weights(lambda new, old: old - (new - old)),
    "change x -99": on_weights(lambda new, old: old - 99 * (new - old)),
    "zeros": on_weights(lambda new, old: np.zeros_like(new)),
    "negated": on_weights(lambda new, old: -new),
    "random": on_weights(lambda new, old: np.random.default_rng(0).normal(size=SIZE)),
}


def run(make_grid, train, base=FedAdagrad, rounds=6, folder=None, arrays=None, **options):
    """Run rounds with all clients; return the last model's arrays and the result."""
    cls = type("Strategy", (Waggle, base), {})
    strategy = cls(
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=2,
        min_available_nodes=2,
        run=Run.create(folder) if folder else None,
        **({"eta": 1.0, "tau": 0.1} if base is FedAdagrad else {}),
        **options,
    )
    grid = make_grid(train, CLIENTS)
    result = strategy.start(grid, arrays or model(), num_rounds=rounds, timeout=60)
    return {key: array.numpy() for key, array in result.arrays.items()}


@pytest.fixture
def alone(make_grid):
    """Return the model of the nine."""
    return run(make_grid, client("absent"))


@pytest.mark.parametrize("count", [None, 10_000_000])
@pytest.mark.parametrize("in_rounds", [range(1, 2), range(3, 4), range(100)])
def test_an_update_far_out_of_line_is_as_if_its_sender_were_absent(make_grid, in_rounds, count):
    """In round 1 too, in which nothing is known of any client."""
    absent = run(make_grid, client("absent", in_rounds=in_rounds))
    for name, attack in FAR_OUT.items():
        attacked = run(make_grid, client(attack, count, in_rounds))
        for key, expected in absent.items():
            np.testing.assert_array_equal(attacked[key], expected, err_msg=f"{name}: {key}")


@pytest.mark.parametrize("count", [None, 10_000_000])
@pytest.mark.parametrize("name", sorted(WITHIN))
def test_an_update_within_its_bounds_moves_the_model_by_little(make_grid, alone, name, count):
    """Nine bring the model nearly all of the way in six rounds; the tenth costs a part of it."""
    attacked = run(make_grid, client(WITHIN[name], count))
    assert abs(attacked["w"].mean() - alone["w"].mean()) < 0.2 * alone["w"].mean()


def test_what_layers_measure_and_count_cannot_be_owned_either(make_grid, alone):
    def attack(new, old):
        huge = {"bn.running_var": np.full(3, 1e15, np.float32)}
        return {**huge, "bn.num_batches_tracked": np.array(2**62)}

    attacked = run(make_grid, client(attack))
    np.testing.assert_allclose(attacked["bn.running_var"], alone["bn.running_var"], rtol=0.3)
    assert abs(int(attacked["bn.num_batches_tracked"]) - 60) < 30


def test_bounds_are_recorded_with_their_figures(make_grid, tmp_path):
    run(make_grid, client(WITHIN["change x -99"], 10_000_000), rounds=1, folder=tmp_path)
    (folder,) = tmp_path.iterdir()
    updates = {
        e.client: e for e in read_events(folder / "events.jsonl") if e.event == "client-updated"
    }
    attacker, other = updates["3"], updates["4"]
    assert attacker.num_examples == 10_000_000
    assert attacker.weight == 60
    assert attacker.scale == pytest.approx(1 / 99, rel=0.1)
    assert attacker.norm == pytest.approx(99 * other.norm, rel=0.1)
    assert (other.scale, other.weight) == (1.0, None)


def test_honest_clients_are_not_touched(make_grid):
    """The model is that of the stock strategy's plain mean, bit for bit, as without bounds."""
    bounded = run(make_grid, client())
    rules = RoundRules(outliers=OutlierRule(share=0))
    unbounded = run(make_grid, client(), rules=rules)
    for key, expected in unbounded.items():
        np.testing.assert_array_equal(bounded[key], expected)


def test_without_bounds_one_client_owns_the_model(make_grid, alone):
    """The law holds because of the bounds; zero switches them off, and no later step counts."""
    rules = RoundRules(outliers=OutlierRule(share=0))
    attacked = run(make_grid, client(FAR_OUT["1e15"], in_rounds=range(3, 4)), rules=rules)
    assert abs(attacked["w"].mean() - alone["w"].mean()) > 0.5


def test_the_outcome_does_not_depend_on_the_order_of_arrival(make_grid):
    train = client(WITHIN["negated"], 10_000_000)
    cls = type("Strategy", (Waggle, FedAdagrad), {})
    models = []
    for reverse in (False, True):
        strategy = cls(fraction_train=1.0, fraction_evaluate=0.0)
        grid = make_grid(train, CLIENTS, reverse=reverse)
        models.append(strategy.start(grid, model(), num_rounds=3).arrays)
    for key in models[0]:
        assert models[0][key].data == models[1][key].data


def test_strategies_that_compare_replies_get_them_as_they_were_sent(make_grid):
    attack = FAR_OUT["change x -1000"]
    bounded = run(make_grid, client(attack), FedMedian)
    rules = RoundRules(outliers=OutlierRule(share=0))
    np.testing.assert_array_equal(
        bounded["w"], run(make_grid, client(attack), FedMedian, rules=rules)["w"]
    )


def test_a_users_own_aggregation_gets_bounded_replies(make_grid):
    class Own(FedAvg):
        def aggregate_train(self, server_round, replies):
            return super().aggregate_train(server_round, list(replies))

    attacked = run(make_grid, client(WITHIN["change x -99"], 10_000_000), Own)
    expected = run(make_grid, client(WITHIN["change x -99"], 10_000_000), FedAvg)
    np.testing.assert_allclose(attacked["w"], expected["w"], rtol=1e-3, atol=1e-6)


def test_a_step_that_is_not_finite_is_taken_again_without_the_culprit(make_grid, tmp_path):
    """A loss of 1e300 scales a client's update in q-FedAvg; no round is lost by it."""
    train = client(metrics={"train_loss": 1e300})
    weights = ArrayRecord({"w": model()["w"]})  # Flower's q-FedAvg cannot step whole numbers
    options = {"client_learning_rate": 0.1, "q": 2.0, "arrays": weights}
    attacked = run(make_grid, train, QFedAvg, rounds=2, folder=tmp_path, **options)
    absent = run(make_grid, client("absent"), QFedAvg, rounds=2, **options)
    np.testing.assert_array_equal(attacked["w"], absent["w"])
    (folder,) = tmp_path.iterdir()
    events = read_events(folder / "events.jsonl")
    codes = [(e.client, e.code) for e in events if e.event == "client-quarantined"]
    assert codes == [("3", "step-not-finite")] * 2


def evaluate(lie=None):
    """Return an evaluate function: the truth is the mean of the weights; the attacker lies."""

    def answer(msg, context) -> Message:
        accuracy = float(msg.content["arrays"]["w"].numpy().mean())
        examples = 60
        if context.node_config["partition-id"] == ATTACKER and lie is not None:
            accuracy, examples = lie, 10_000_000
        metrics = MetricRecord({"accuracy": accuracy, "num-examples": examples})
        return Message(RecordDict({"metrics": metrics}), reply_to=msg)

    return answer


@pytest.mark.parametrize("lie", [1.0, 1e300, 0.0, -1e300])
def test_no_client_can_choose_the_best_model_by_what_it_reports(make_grid, tmp_path, lie):
    """The model improves in every round, so the last one is the best, whatever one client says."""
    cls = type("Strategy", (Waggle, FedAdagrad), {})
    strategy = cls(tau=0.1, fraction_train=1.0, fraction_evaluate=1.0, run=Run.create(tmp_path))
    strategy.start(make_grid(client(), CLIENTS, evaluate=evaluate(lie)), model(), num_rounds=4)
    (folder,) = tmp_path.iterdir()
    *_, end = read_events(folder / "events.jsonl")
    assert end.best.round == 4
    assert 0.1 < end.best.value < 1.0


def test_no_client_can_choose_the_metric_that_picks_the_best_model(make_grid, tmp_path):
    """Two of three report the accuracy first; the first of the three reports a loss of 0 first."""

    def answer(msg, context) -> Message:
        numbers = {"accuracy": float(msg.content["arrays"]["w"].numpy().mean()), "num-examples": 9}
        is_first = context.node_config["partition-id"] == 0
        metrics = {"loss": 0.0, **numbers} if is_first else {**numbers, "loss": 1.0}
        return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)

    cls = type("Strategy", (Waggle, FedAdagrad), {})
    strategy = cls(tau=0.1, fraction_train=1.0, fraction_evaluate=1.0, run=Run.create(tmp_path))
    strategy.start(make_grid(client(), 3, evaluate=answer), model(), num_rounds=2)
    (folder,) = tmp_path.iterdir()
    *_, end = read_events(folder / "events.jsonl")
    assert end.best.metric == "accuracy"
