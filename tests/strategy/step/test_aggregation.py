"""Laws of the step: Flower's strategies cannot tell one reply with the mean from all of them."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedXgbBagging,
    FedYogi,
    Krum,
    MultiKrum,
    QFedAvg,
    Strategy,
)
from flwr.supercore.differential_privacy import KEY_NORM_BIT

from fedwaggle.strategy.averaging.arrays import Template
from fedwaggle.strategy.averaging.fold import Fold, Mean
from fedwaggle.strategy.step.aggregation import (
    mean_message,
    required_metrics,
    restore,
    stepped_keys,
    takes_mean,
)

SERVER_OPTIMIZERS: list[Callable[[], Strategy]] = [
    lambda: FedAvgM(server_learning_rate=0.5, server_momentum=0.9),
    lambda: FedAdagrad(tau=0.1),
    lambda: FedAdam(tau=0.1),
    lambda: FedYogi(tau=0.1),
]
OF_THE_MEAN: list[Callable[[], Strategy]] = [FedAvg, FedProx, FedAvgM, *SERVER_OPTIMIZERS]
OF_ALL_REPLIES: list[Callable[[], Strategy]] = [
    FedMedian,
    FedTrimmedAvg,
    lambda: Krum(num_malicious_nodes=1),
    lambda: MultiKrum(num_malicious_nodes=1, num_nodes_to_select=3),
    lambda: Bulyan(num_malicious_nodes=0),
    lambda: QFedAvg(client_learning_rate=0.1, q=0.1, train_loss_key="train_loss"),
]


def name_of(make: Callable[[], Strategy]) -> str:
    return type(make()).__name__


def model(scale: float = 1.0, steps: int | None = 7) -> ArrayRecord:
    """Return a layer and a BatchNorm: two trainable arrays, two statistics, perhaps a counter."""
    arrays = {
        "fc.weight": np.array([[1.0, -2.0], [0.5, 4.0]]) * scale,
        "fc.bias": np.array([0.25, -0.5]) * scale,
        "bn.running_mean": np.array([10.0, 20.0]) * scale,
        "bn.running_var": np.array([1e30, 3.0]) * scale,
    }
    record = {key: Array(value.astype(np.float32)) for key, value in arrays.items()}
    if steps is not None:
        record["bn.num_batches_tracked"] = Array(np.array(steps))
    return ArrayRecord(record)


def replies_of(server_round: int, *, counter: bool = True) -> list[Message]:
    """Return six clients' replies, in the order of their names."""
    rng = np.random.default_rng(server_round)
    replies = []
    for k in range(6):
        steps = 7 + server_round + k if counter else None
        arrays = model(scale=1 + 0.1 * rng.standard_normal(), steps=steps)
        metrics = MetricRecord({"train_loss": float(rng.uniform(0.1, 2)), "num-examples": 10 + k})
        instruction = Message(RecordDict(), dst_node_id=100 + k, message_type="train")
        content = RecordDict({"arrays": arrays, "metrics": metrics})
        replies.append(Message(content, reply_to=instruction))
    return replies


def numpys(arrays: ArrayRecord) -> dict[str, np.ndarray]:
    return {key: array.numpy() for key, array in arrays.items()}


def folded(replies: list[Message], template: Template) -> Mean:
    names = [str(k) for k in range(len(replies))]
    with Fold(names, template) as fold:
        for name, reply in zip(names, replies, strict=True):
            weight = reply.content["metrics"]["num-examples"]
            fold.add(name, numpys(reply.content["arrays"]), weight)
        mean = fold.finish()
    assert mean is not None
    return mean


def step_from_mean(
    strategy: Strategy, server_round: int, current: ArrayRecord, replies: list[Message]
) -> ArrayRecord:
    template = Template.of(current)
    stepped = stepped_keys(strategy, template)
    mean = folded(replies, template)
    reply = mean_message(mean, replies[0], current=current, stepped=stepped)
    new, _ = strategy.aggregate_train(server_round, [reply])
    assert new is not None
    return restore(new, template, mean=mean, stepped=stepped)


@pytest.fixture
def configure(make_grid):
    """Return a function that lets a strategy see the model of a round, as its `start` would."""
    grid = make_grid(lambda message, context: message, 6)

    def do(strategy: Strategy, server_round: int, arrays: ArrayRecord) -> None:
        list(strategy.configure_train(server_round, arrays, ConfigRecord(), grid))

    return do


@pytest.mark.parametrize("make", OF_THE_MEAN, ids=name_of)
def test_one_reply_with_the_mean_steps_as_all_replies_do(make, configure):
    """Two rounds, for the sake of moments, from the same model in each."""
    stock, ours = make(), make()
    assert takes_mean(ours)
    trainable = Template.of(model()).trainable
    for server_round in (1, 2):
        current, replies = model(scale=1 + server_round / 10), replies_of(server_round)
        configure(stock, server_round, current)
        configure(ours, server_round, current)
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # stock squares the change of a statistic of 1e30
            expected, _ = stock.aggregate_train(server_round, deepcopy(replies))
        found = step_from_mean(ours, server_round, current, replies)
        for key in trainable:
            np.testing.assert_allclose(found[key].numpy(), expected[key].numpy(), rtol=2e-5)


@pytest.mark.parametrize("make", OF_THE_MEAN, ids=name_of)
def test_what_is_not_trained_is_the_clients_mean_in_its_own_dtype(make, configure):
    strategy, replies = make(), replies_of(1)
    configure(strategy, 1, model())
    found = numpys(step_from_mean(strategy, 1, model(), replies))
    mean = folded(replies, Template.of(model())).arrays
    for key in ("bn.running_mean", "bn.running_var", "bn.num_batches_tracked"):
        np.testing.assert_array_equal(found[key], mean[key])
    assert {key: (a.dtype, a.shape) for key, a in found.items()} == {
        key: (a.dtype, a.shape) for key, a in numpys(model()).items()
    }
    assert list(found) == list(model())


@pytest.mark.parametrize("make", SERVER_OPTIMIZERS, ids=name_of)
def test_no_huge_statistic_and_no_counter_gets_into_a_server_optimizers_moments(make, configure):
    """Its running variance of 1e30 squares to infinity in float32: here it never moves."""
    strategy = make()
    configure(strategy, 1, model())
    step_from_mean(strategy, 1, model(), replies_of(1))
    moments = [getattr(strategy, "v_t", None), getattr(strategy, "m_t", None)]
    for moment in filter(None, moments):
        for key in ("bn.running_var", "bn.num_batches_tracked"):
            assert not np.any(moment[key])
    if isinstance(strategy, FedAvgM):
        assert not any(np.any(moment) for moment in strategy.momentum_vector[2:])


def test_a_users_trainable_keys_are_stepped_and_no_others(configure):
    strategy, replies = FedAdagrad(tau=0.1), replies_of(1)
    template = Template.of(model())
    configure(strategy, 1, model())
    mean = folded(replies, template)
    reply = mean_message(mean, replies[0], current=model(), stepped={"fc.bias"})
    new, _ = strategy.aggregate_train(1, [reply])
    found = numpys(restore(new, template, mean=mean, stepped={"fc.bias"}))
    np.testing.assert_array_equal(found["fc.weight"], mean.arrays["fc.weight"])
    assert not np.array_equal(found["fc.bias"], mean.arrays["fc.bias"])


@pytest.mark.parametrize("make", OF_ALL_REPLIES, ids=name_of)
def test_a_strategy_that_compares_replies_gets_them_all_and_is_stock(make, configure):
    """Without a counter, on which stock QFedAvg raises."""
    stock, ours, replies = make(), make(), replies_of(1, counter=False)
    current = model(steps=None)
    assert not takes_mean(ours)
    configure(stock, 1, current)
    configure(ours, 1, current)
    with np.errstate(over="ignore", invalid="ignore"):
        expected, _ = stock.aggregate_train(1, deepcopy(replies))
        new, _ = ours.aggregate_train(1, deepcopy(replies))
    found = numpys(restore(new, Template.of(current)))
    for key, values in numpys(expected).items():
        assert found[key].dtype == np.float32
        np.testing.assert_array_equal(found[key], values.astype(np.float32))


# -- Who takes the mean --------------------------------------------------------------------------


def test_client_side_fixed_clipping_takes_the_mean_if_the_strategy_below_does(configure):
    def wrapped(inner: Strategy) -> Strategy:
        return DifferentialPrivacyClientSideFixedClipping(inner, 0.5, 0.1, 6)

    assert takes_mean(wrapped(FedAvg()))
    assert not takes_mean(wrapped(FedMedian()))
    assert stepped_keys(wrapped(FedAdam()), Template.of(model())) == set(model())  # noise on all
    stock, ours = wrapped(FedAvg()), wrapped(FedAvg())
    found = []
    for strategy, step in ((stock, None), (ours, step_from_mean)):
        configure(strategy, 1, model())
        np.random.seed(5)  # Flower draws its noise from there
        if step is None:
            found.append(strategy.aggregate_train(1, replies_of(1))[0])
        else:
            found.append(step(strategy, 1, model(), replies_of(1)))
    for key in ("fc.weight", "fc.bias", "bn.running_mean"):
        np.testing.assert_allclose(found[1][key].numpy(), found[0][key].numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    "wrapper",
    [
        lambda inner: DifferentialPrivacyServerSideFixedClipping(inner, 0.1, 1.0, 6),
        lambda inner: DifferentialPrivacyServerSideAdaptiveClipping(inner, 0.1, 6),
        lambda inner: DifferentialPrivacyClientSideAdaptiveClipping(inner, 0.1, 6),
    ],
)
def test_the_other_wrappers_look_at_each_reply(wrapper):
    assert not takes_mean(wrapper(FedAvg()))


def test_a_users_own_aggregate_gets_every_reply():
    class Own(FedAvg):
        def aggregate_train(self, server_round, replies):
            return super().aggregate_train(server_round, replies)

    class Below(FedAdagrad, FedMedian):
        """FedAdagrad over a median: its `super()` is FedMedian."""

    class Configured(FedAdagrad):
        def configure_train(self, server_round, arrays, config, grid):
            return super().configure_train(server_round, arrays, config, grid)

    patched = FedAvg()
    patched.aggregate_train = lambda server_round, replies: (None, None)
    assert not takes_mean(Own())
    assert not takes_mean(Below())
    assert not takes_mean(patched)
    assert not takes_mean(FedXgbBagging())
    assert takes_mean(Configured())


def test_a_mixin_without_an_aggregate_of_its_own_changes_nothing():
    class Mixin(Strategy):
        """Like Waggle: before a strategy of Flower's, and calls its verbs."""

    class Plain(Mixin, FedAdagrad):
        pass

    class Own(Mixin, FedAdagrad):
        def aggregate_train(self, server_round, replies):
            return super().aggregate_train(server_round, replies)

    assert takes_mean(Plain())
    assert not takes_mean(Own())


# -- What a step needs ---------------------------------------------------------------------------


def test_the_metrics_without_which_a_step_raises_are_known_through_every_wrapper():
    inner = QFedAvg(client_learning_rate=0.1, train_loss_key="my_loss")
    assert required_metrics(inner) == {"my_loss"}
    wrapped = DifferentialPrivacyClientSideAdaptiveClipping(inner, 0.1, 6)
    assert required_metrics(wrapped) == {"my_loss", KEY_NORM_BIT}
    assert required_metrics(FedAdagrad()) == frozenset()


def test_a_users_trainable_keys_are_for_server_optimizers_alone():
    template = Template.of(model())
    mine = frozenset({"fc.bias", "bn.running_mean"})
    assert stepped_keys(FedAdagrad(), template, mine) == {"fc.bias"}
    assert stepped_keys(FedMedian(), template, mine) == set(model())


# -- The message and the model -------------------------------------------------------------------


def test_the_message_is_like_a_reply_with_the_mean_and_its_weight():
    replies, template = replies_of(1), Template.of(model())
    renamed = copy(replies[0])
    records = dict(replies[0].content.items())
    renamed.content = RecordDict({"w": records["arrays"], "m": records["metrics"]})
    mean = folded(replies, template)
    message = mean_message(
        mean, renamed, current=model(), stepped=set(model()), metrics={"train_loss": 0.5},
        weighted_by_key="examples",
    )  # fmt: skip
    assert message.metadata == renamed.metadata
    assert list(message.content) == ["w", "m"]
    assert dict(message.content["m"]) == {
        "train_loss": 0.5,
        "examples": 10 + 11 + 12 + 13 + 14 + 15,
    }
    assert renamed.content["m"]["num-examples"] == 10
    for key, values in mean.arrays.items():
        np.testing.assert_array_equal(message.content["w"][key].numpy(), values)


def test_restoring_keeps_what_the_strategy_added_and_changes_no_input():
    """A float64 counter of 8.5 is 8 again; an array that the model does not have stays."""
    template = Template.of(ArrayRecord({"steps": Array(np.array(7)), "w": Array(np.ones(2))}))
    aggregated = ArrayRecord(
        {
            "w": Array(np.array([0.5, 2.0])),
            "steps": Array(np.array(8.5)),
            "new": Array(np.zeros(1, np.float16)),
        }
    )
    restored = restore(aggregated, template)
    assert restored["steps"].numpy() == 8
    assert restored["steps"].dtype == "int64"
    assert restored["w"].data == aggregated["w"].data
    assert restored["new"].dtype == "float16"
    assert aggregated["steps"].dtype == "float64"
