"""Laws of admission: what a client sent becomes an update or a quarantine, and nothing raises."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedwaggle.errors import ConfigError, MetadataCode
from fedwaggle.metadata import pack
from fedwaggle.strategy.codes import EXPLANATIONS, Code
from fedwaggle.strategy.exchange import Arrival
from fedwaggle.strategy.replies.admission import (
    Admitted,
    AdmittedEvaluation,
    Limits,
    Template,
    admit,
    admit_evaluation,
)
from fedwaggle.strategy.updates import Contract, Quarantined
from strategy.hostile import ANSI_TEXT, KINDS, error, on_metadata, on_metrics, with_records


@dataclass(frozen=True)
class Facts:
    training_time: float
    converged: bool = False


NODE = 100
LIMITS = Limits(max_num_examples=10_000)


def model() -> ArrayRecord:
    """Return a linear layer and a counter: float32 (2, 3), float32 (2,) and int64 ()."""
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrays = {"fc.weight": weight, "fc.bias": np.ones(2, np.float32), "bn.steps": np.array(7)}
    return ArrayRecord({key: Array(value) for key, value in arrays.items()})


def honest(arrays: ArrayRecord | None = None) -> Message:
    content = RecordDict(
        {
            "arrays": arrays or model(),
            "metrics": MetricRecord({"train_loss": 0.5, "losses": [1.0, 0.5], "num-examples": 3}),
            "metadata": pack(Facts(1.5, converged=True)),
        }
    )
    instruction = Message(RecordDict(), dst_node_id=NODE, message_type="train")
    return Message(content, reply_to=instruction)


def judge(reply: Message, **options: object):
    arguments = {
        "client": "3",
        "server_round": 7,
        "template": Template.of(model()),
        "limits": LIMITS,
        "contract": Contract(Facts),
    }
    return admit(Arrival(NODE, reply, 2.0), **{**arguments, **options})


def judge_evaluation(reply: Message, **options: object):
    return admit_evaluation(Arrival(NODE, reply, 2.0), client="3", limits=LIMITS, **options)


def test_every_code_is_explained_and_every_explanation_has_a_code():
    assert set(EXPLANATIONS) == set(Code)
    assert all(code.explanation and "\n" not in code.explanation for code in Code)


def test_every_code_has_a_bad_reply_in_the_catalogue():
    """But for those that take another limit, and those that only the whole round shows."""
    others = {Code.BAD_METADATA, Code.NO_CHANGE, Code.OUT_OF_LINE, Code.STEP_NOT_FINITE}
    assert {kind.code for kind in KINDS.values()} - {None} == set(Code) - others


def test_an_honest_reply_is_an_update_with_the_models_arrays():
    admitted = judge(honest())
    assert isinstance(admitted, Admitted)
    update = admitted.update
    assert (update.client, update.node_id, update.server_round) == ("3", NODE, 7)
    assert (update.num_examples, update.seconds) == (3, 2.0)
    assert update.metrics == {"train_loss": 0.5, "losses": [1.0, 0.5], "num-examples": 3}
    assert (update.metadata, update.metadata_error) == (Facts(1.5, converged=True), None)
    assert update.bytes > 6 * 4 + 2 * 4 + 8
    assert list(admitted.arrays) == ["fc.weight", "fc.bias", "bn.steps"]
    assert admitted.arrays["fc.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert admitted.arrays["bn.steps"].dtype == np.int64


def test_the_arrays_of_an_update_are_the_payload_itself():
    reply = honest()
    admitted = judge(reply)
    payload = np.frombuffer(reply.content["arrays"]["fc.weight"].data, np.uint8)
    assert np.shares_memory(admitted.arrays["fc.weight"], payload)


@pytest.mark.parametrize("name", KINDS)
def test_a_bad_reply_has_its_code_and_an_odd_one_is_fine(name):
    kind = KINDS[name]
    reply = judge(kind.spoil(honest()))
    if kind.code is None:
        assert isinstance(reply, Admitted)
        refused = reply.update.metadata_error
        assert (refused and refused.code) == kind.metadata_code
        assert (reply.update.metadata is None) == (refused is not None)
    else:
        assert isinstance(reply, Quarantined)
        assert (reply.code, reply.client, reply.node_id, reply.seconds) == (
            kind.code, "3", NODE, 2.0,
        )  # fmt: skip
        assert reply.reason.isprintable()
        assert 0 < len(reply.reason) < 600


@pytest.mark.parametrize(
    "name",
    ["weight-zero", "weight-missing", "many-metrics", "no-metric-record", "two-metric-records"]
    + [name for name in KINDS if name.startswith("error-")],
)
def test_a_bad_evaluation_has_the_same_code(name):
    assert judge_evaluation(KINDS[name].spoil(honest())).code == KINDS[name].code


def test_an_evaluation_needs_no_arrays():
    reply = judge_evaluation(KINDS["no-array-record"].spoil(honest()))
    assert isinstance(reply, AdmittedEvaluation)
    assert reply.client == "3"
    assert reply.message.content["metrics"]["train_loss"] == 0.5


@pytest.mark.parametrize("name", [n for n, kind in KINDS.items() if kind.metadata_code])
def test_bad_metadata_costs_a_client_its_weights_only_where_the_server_says_so(name):
    spoiled = KINDS[name].spoil(honest())
    strict = Limits(max_num_examples=10_000, on_bad_metadata="drop-reply")
    assert judge(spoiled, limits=strict).code == Code.BAD_METADATA
    wide = Limits(max_num_examples=10_000, max_record_bytes=1 << 21)
    assert isinstance(judge(spoiled, contract=None, limits=wide), Admitted)


def test_a_client_is_quoted_as_such_and_flower_in_its_place_as_flower():
    reply = error(2, ANSI_TEXT)(honest())
    assert judge(reply).reason.startswith("the client says: boom AAAA")
    reply.metadata.__dict__["_src_node_id"] = 1  # the SuperLink answers for a node that is gone
    assert judge(reply).reason.startswith("Flower says: boom AAAA")


def test_a_reason_names_the_key_what_was_expected_and_what_came():
    longer = judge(KINDS["shape-longer"].spoil(honest()))
    assert longer.reason == "'fc.weight': expected shape (2, 3), got (7,)"
    missing = judge(KINDS["missing-key"].spoil(honest()))
    assert missing.reason == "expected 'fc.weight', which the model has"
    weight = judge(KINDS["weight-1e12"].spoil(honest()))
    assert "at most max-num-examples = 10000, got int 1000000000000" in weight.reason


def test_the_largest_allowed_weight_is_allowed():
    assert isinstance(judge(on_metrics({"num-examples": 10_000})(honest())), Admitted)
    assert judge(on_metrics({"num-examples": 10_001})(honest())).code == Code.EXCESSIVE_WEIGHT


@pytest.mark.parametrize("weight", [3, 3.0, 2.5, 5e-324, 1e4])
def test_a_weight_is_any_finite_number_above_0_and_stays_of_its_type(weight):
    update = judge(on_metrics({"num-examples": weight})(honest())).update
    assert (update.num_examples, type(update.num_examples)) == (weight, type(weight))


def test_a_whole_number_of_any_size_is_finite_or_not_and_never_raises():
    """On the wire ints have 64 bits; in one process they may have 400 digits."""
    assert judge(on_metrics({"steps": 2**64})(honest())).update.metrics["steps"] == 2**64
    assert judge(on_metrics({"steps": 10**400})(honest())).update.dropped_metrics == ("steps",)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), [1.0, float("inf")]])
def test_a_metric_that_is_not_finite_is_dropped_and_the_rest_of_the_reply_is_used(value):
    reply = on_metrics({"f1": value})(honest())
    admitted, evaluation = judge(reply), judge_evaluation(reply)
    left = {"train_loss": 0.5, "losses": [1.0, 0.5], "num-examples": 3}
    assert (admitted.update.metrics, admitted.update.dropped_metrics) == (left, ("f1",))
    assert dict(admitted.message.content["metrics"]) == left
    assert dict(evaluation.message.content["metrics"]) == left
    assert evaluation.dropped_metrics == ("f1",)
    assert "f1" in reply.content["metrics"]  # what came stays as it is


@pytest.mark.parametrize(
    "needs", [{"required_metrics": frozenset({"f1"})}, {"reads_all_metrics": True}]
)
def test_a_metric_that_is_not_finite_and_may_be_needed_costs_the_client_its_reply(needs):
    bad = judge(on_metrics({"f1": float("nan")})(honest()), limits=Limits(10_000, **needs))
    assert bad.code == Code.BAD_METRIC
    assert bad.reason == "metric 'f1': expected finite, got float nan"


@pytest.mark.parametrize(
    ("most", "one_more"),
    [
        ({f"m{i}": 1.0 for i in range(997)}, {"another": 1.0}),  # with train_loss, losses, weight
        ({"long": [0.5] * 99_996}, {"another": 1.0}),  # with one, two and one number
        ({"m" * 1_000: 1.0}, {"m" * 1_001: 1.0}),
    ],
)
def test_a_client_sends_1000_metrics_100000_numbers_and_names_of_1000_letters_at_most(
    most, one_more
):
    assert isinstance(judge(on_metrics(most)(honest())), Admitted)
    spoiled = on_metrics({**most, **one_more})(honest())
    for bad in (judge(spoiled), judge_evaluation(spoiled)):
        assert bad.code == Code.BAD_METRIC
        assert "at most 1000" in bad.reason


@pytest.mark.parametrize(
    "value", [b"1" * 92, "1" * 92, [1] * 11 + [2], [b"1" * 84], ["1" * 42, "1" * 34], 5]
)
def test_config_records_have_a_size_whatever_is_in_them(value):
    """The name "note" and the key "a" have 5 bytes, a number or an item of a list has 8 more."""
    reply = with_records(honest(), {"note": ConfigRecord({"a": value}), "metadata": None})
    size = 13 if value == 5 else 101 if value == [1] * 11 + [2] else 97
    for admits, code in ((size, None), (size - 1, Code.TOO_LARGE)):
        limits = Limits(max_num_examples=10_000, max_record_bytes=admits)
        judged = judge(reply, limits=limits, contract=None)
        evaluation = admit_evaluation(Arrival(NODE, reply, 2.0), client="3", limits=limits)
        assert getattr(judged, "code", None) == getattr(evaluation, "code", None) == code


def test_the_payload_of_metadata_has_a_limit_of_its_own():
    """122 bytes of payload, and a limit of 80 for all else that the records hold."""
    reply = on_metadata({"payload": b'{"training_time": 1.5}' + b" " * 100})(honest())
    limits = Limits(max_num_examples=10_000, max_record_bytes=80)
    assert judge(reply, limits=limits).update.metadata == Facts(1.5)
    assert judge(reply, limits=limits, contract=None).code == Code.TOO_LARGE


@pytest.mark.parametrize(
    ("loss", "shown"), [(None, "got nothing"), (-1.0, "-1.0"), ([0.5], "list")]
)
def test_a_metric_that_the_strategy_needs_is_a_number_of_at_least_0(loss, shown):
    needs = Limits(max_num_examples=10_000, required_metrics=frozenset({"train_loss"}))
    spoiled = on_metrics({"train_loss": loss})(honest())
    bad = judge(spoiled, limits=needs)
    assert bad.code == Code.BAD_METRIC
    assert "'train_loss', which the strategy needs" in bad.reason
    assert shown in bad.reason
    assert isinstance(judge(spoiled), Admitted)
    evaluation = admit_evaluation(Arrival(NODE, spoiled, 2.0), client="3", limits=needs)
    assert isinstance(evaluation, AdmittedEvaluation)
    assert isinstance(judge(on_metrics({"train_loss": 0})(honest()), limits=needs), Admitted)


@pytest.mark.parametrize("field", ["stype", "data", "shape", "dtype"])
def test_an_array_with_fields_of_other_types_is_contained(field):
    record = model()
    setattr(record["fc.bias"], field, 5)
    assert judge(honest(record)).code in set(Code)


def test_a_message_without_content_or_error_is_contained():
    reply = honest()
    reply.__dict__["_content"] = None
    assert judge(reply).code == Code.UNDECODABLE
    assert judge_evaluation(reply).code == Code.UNDECODABLE


def test_a_contract_that_cannot_work_is_the_operators_error_and_raises():
    with pytest.raises(ConfigError, match="trust-pickle"):
        judge(honest(), contract=Contract(Facts, codec="pickle"))


def test_a_judged_reply_is_freed_without_the_garbage_collector():
    """Flower's ``content.array_records`` would keep every reply of a round in memory."""
    reply = honest()
    alive = weakref.ref(reply)
    gc.disable()
    try:
        judge(reply)
        judge_evaluation(reply)
        content = weakref.ref(reply.content)
        del reply
        assert (alive(), content()) == (None, None)
    finally:
        gc.enable()


def test_what_is_admitted_cannot_trip_flower():
    """FedAvg aggregates whatever is admitted, and raises on much of what is not.

    Other metrics than those of the others are made alike only when all replies are in.
    """
    other_metrics = {"extra-metric", "loss-nan", "loss-inf", "loss-list-inf"}
    spoiled = [kind.spoil(honest()) for name, kind in KINDS.items() if name not in other_metrics]
    good = [reply.message for reply in map(judge, spoiled) if isinstance(reply, Admitted)]
    arrays, metrics = FedAvg().aggregate_train(1, [honest(), *good])
    np.testing.assert_allclose(arrays["fc.weight"].numpy(), [[0, 1, 2], [3, 4, 5]], rtol=1e-6)
    assert metrics["train_loss"] == pytest.approx(0.5)


# -- Anything at all -----------------------------------------------------------------------------

JUNK_NUMBERS = st.one_of(st.integers(), st.floats(), st.lists(st.floats(), max_size=3))
JUNK_BYTES = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=150).map(
        lambda text: b"\x93NUMPY\x01\x00\x96\x00" + text.encode("latin1", "replace")
    ),
    st.integers(0, 159).map(lambda cut: model()["fc.weight"].data[:cut]),
)
JUNK_ARRAYS = st.builds(
    Array,
    st.text(max_size=10) | st.just("float32"),
    st.tuples(st.integers(), st.integers()) | st.just((2, 3)),
    st.just("numpy.ndarray") | st.text(max_size=5),
    JUNK_BYTES,
)
JUNK_VALUES = st.one_of(
    st.integers(), st.floats(), st.text(), st.binary(), st.booleans(), st.lists(st.integers())
)
JUNK_RECORDS = st.one_of(
    st.dictionaries(st.text(max_size=5) | st.just("fc.weight"), JUNK_ARRAYS).map(ArrayRecord),
    st.dictionaries(st.text(max_size=5) | st.just("num-examples"), JUNK_NUMBERS).map(MetricRecord),
    st.dictionaries(st.sampled_from(["schema", "version", "payload"]), JUNK_VALUES).map(
        ConfigRecord
    ),
)
ANY_CHANGES = st.dictionaries(
    st.sampled_from(["arrays", "metrics", "metadata", "more"]), JUNK_RECORDS | st.none()
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes=ANY_CHANGES)
def test_nothing_that_a_client_can_send_raises(changes):
    reply = with_records(honest(), changes)
    judged = judge(reply)
    assert isinstance(judged, Admitted) or judged.code in set(Code)
    judged = judge_evaluation(reply)
    assert isinstance(judged, AdmittedEvaluation) or judged.code in set(Code)


@settings(max_examples=100, deadline=None)
@given(code=st.integers(), reason=st.none() | st.text())
def test_no_error_reply_raises(code, reason):
    reply = honest()
    reply.__dict__.update(_content=None, _error=Error(code, reason))
    judged = judge(reply)
    assert judged.code in set(Code)
    assert judged.reason.isprintable()


@settings(max_examples=100, deadline=None)
@given(data=JUNK_BYTES)
def test_no_payload_raises_or_gives_another_shape(data):
    record = model()
    record["fc.weight"] = Array("float32", (2, 3), "numpy.ndarray", data)
    judged = judge(honest(record))
    assert isinstance(judged, Quarantined) or judged.arrays["fc.weight"].shape == (2, 3)


@pytest.mark.parametrize("code", [MetadataCode.MALFORMED, MetadataCode.INVALID])
def test_metadata_errors_come_with_words(code):
    name = f"metadata-{code.value}"
    assert str(judge(KINDS[name].spoil(honest())).update.metadata_error)
