"""Laws of reading one reply."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)

from fedwaggle.errors import MetadataCode
from fedwaggle.metadata import pack
from fedwaggle.strategy.exchange import Arrival
from fedwaggle.strategy.updates import ClientUpdate, Contract, Quarantined, read_reply, refusal


@dataclass(frozen=True)
class Facts:
    training_time: float
    converged: bool = False


def instruction() -> Message:
    message = Message(RecordDict(), dst_node_id=100, message_type=MessageType.TRAIN)
    message.metadata.__dict__["_message_id"] = "1"
    return message


def arrays() -> ArrayRecord:
    return ArrayRecord({"w": Array(np.array([1.0, 2.0], dtype=np.float32))})


def content(**changes: object) -> RecordDict:
    records = {
        "arrays": arrays(),
        "metrics": MetricRecord({"train_loss": 0.5, "num-examples": 3}),
        "metadata": pack(Facts(1.5, converged=True)),
        **changes,
    }
    return RecordDict({key: value for key, value in records.items() if value is not None})


def read(reply: RecordDict | Error, contract: Contract | None = Contract(Facts)):  # noqa: B008
    arrival = Arrival(100, Message(reply, reply_to=instruction()), 2.0)
    return read_reply(
        arrival, client="3", server_round=7, weighted_by_key="num-examples", contract=contract
    )


def test_a_good_reply_is_an_update_with_typed_metadata():
    update = read(content())
    assert isinstance(update, ClientUpdate)
    assert (update.client, update.node_id, update.server_round) == ("3", 100, 7)
    assert update.metadata == Facts(1.5, converged=True)
    assert update.metadata_error is None
    assert update.metrics == {"train_loss": 0.5, "num-examples": 3}
    assert (update.num_examples, update.seconds) == (3, 2.0)
    assert update.bytes > 2 * 4  # two float32 and the metadata


def test_without_a_contract_no_metadata_is_read():
    update = read(content(), contract=None)
    assert (update.metadata, update.metadata_error) == (None, None)


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (None, MetadataCode.MALFORMED),
        (ConfigRecord({"schema": "Other", "version": 1, "payload": b"{}"}), "wrong-schema"),
        (ConfigRecord({"schema": "Facts", "version": 1, "payload": b"\xff"}), "malformed"),
    ],
)
def test_bad_metadata_keeps_the_weights_and_says_why(record, code):
    update = read(content(metadata=record))
    assert isinstance(update, ClientUpdate)
    assert update.metadata is None
    assert update.metadata_error.code == code


def test_an_error_reply_is_quarantined_with_its_text_made_safe():
    quarantined = read(Error(2, "\x1b[31mboom\x1b[0m\n" + "x" * 10_000))
    assert isinstance(quarantined, Quarantined)
    assert quarantined.code == "client-error"
    assert quarantined.reason.startswith("error 2: boom xxx")
    assert len(quarantined.reason) < 600
    assert "\x1b" not in quarantined.reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arrays": None}, "exactly one ArrayRecord, got 0"),
        ({"more": arrays()}, "exactly one ArrayRecord, got 2"),
        ({"metrics": None}, "exactly one MetricRecord, got 0"),
        ({"more": MetricRecord({"num-examples": 1})}, "exactly one MetricRecord, got 2"),
        ({"metrics": MetricRecord({"loss": 1.0})}, "'num-examples': expected a number above 0"),
        ({"metrics": MetricRecord({"num-examples": 0})}, "above 0, got 0"),
        ({"metrics": MetricRecord({"num-examples": -9})}, "above 0, got -9"),
        ({"metrics": MetricRecord({"num-examples": float("nan")})}, "above 0, got nan"),
        ({"metrics": MetricRecord({"num-examples": [1, 2]})}, "above 0, got [1, 2]"),
    ],
)
def test_a_malformed_reply_is_quarantined_with_what_is_wrong(changes, words):
    quarantined = read(content(**changes))
    assert isinstance(quarantined, Quarantined)
    assert quarantined.code == "malformed-reply"
    assert words in quarantined.reason


def test_a_reply_to_an_evaluation_needs_no_arrays():
    message = Message(content(arrays=None), reply_to=instruction())
    assert refusal(message, weighted_by_key="num-examples", with_arrays=False) is None
