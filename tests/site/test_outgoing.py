"""What leaves a site: the weights, the metrics and the metadata of one reply."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedwaggle.client import reply
from fedwaggle.site.outgoing import under_policy
from fedwaggle.site.policy import SitePolicy, WeightsRule


@dataclass(frozen=True)
class Facts:
    """What these clients report."""

    seconds: float = 0.0
    power: float = 0.0


def model(*values: float) -> ArrayRecord:
    return ArrayRecord(
        {"w": Array(np.array(values, dtype=np.float32)), "steps": Array(np.array([7]))}
    )


def client(metadata: object, examples: int = 20) -> ClientApp:
    """Return an app that moves both weights by 3 and 4, which is a change of norm 5."""
    app = ClientApp()

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        arrays = ArrayRecord(
            {
                "w": Array(msg.content["arrays"]["w"].numpy() + np.float32([3, 4])),
                "steps": Array(np.array([8])),
            }
        )
        metrics = {"loss": 0.1234}
        return reply(
            msg, context, arrays=arrays, metrics=metrics, num_examples=examples, metadata=metadata
        )

    return app


Answer = Callable[..., Message]


@pytest.fixture
def answer() -> Answer:
    def answer(text: str, folder: Path, metadata: object = Facts(), examples: int = 20) -> Message:
        (folder / "policy.toml").write_text(text)
        node_config = {"site-policy": str(folder / "policy.toml")}
        context = Context(1, 2, node_config, RecordDict(), {})
        asked = Message(RecordDict({"arrays": model(1, 1)}), dst_node_id=2, message_type="train")
        return client(metadata, examples)(asked, context)

    return answer


def change(message: Message) -> np.ndarray:
    return message.content["arrays"]["w"].numpy() - 1


def test_a_long_change_is_clipped_and_a_counter_stays(answer: Answer, tmp_path: Path) -> None:
    """A change of (3, 4) has the norm 5; clipped to 2.5 it is half as long."""
    sent = answer("[weights]\nclip-norm = 2.5", tmp_path)
    assert change(sent).tolist() == pytest.approx([1.5, 2.0])
    assert sent.content["arrays"]["steps"].numpy().tolist() == [7]
    assert dict(sent.content["site"]) == {"clip-norm": 2.5}


def test_a_short_change_is_sent_as_it_is(answer: Answer, tmp_path: Path) -> None:
    assert change(answer("[weights]\nclip-norm = 50", tmp_path)).tolist() == pytest.approx([3, 4])


def test_noise_has_the_scale_of_the_gaussian_mechanism(answer: Answer, tmp_path: Path) -> None:
    """2 * clip-norm * sqrt(2 ln(1.25 / delta)) / epsilon, over 2,000 draws."""
    policy = "[weights]\nclip-norm = 2.5\nepsilon = 4.0\ndelta = 0.01"
    draws = np.array([change(answer(policy, tmp_path)) for _ in range(1000)])
    std = 2 * 2.5 * math.sqrt(2 * math.log(1.25 / 0.01)) / 4.0
    assert std == pytest.approx(3.884, abs=1e-3)
    assert (draws - [1.5, 2.0]).std() == pytest.approx(std, rel=0.1)
    site = dict(answer(policy, tmp_path).content["site"])
    assert site == {
        "clip-norm": 2.5,
        "noise-std": pytest.approx(std),
        "epsilon": 4.0,
        "delta": 0.01,
    }


def test_with_too_few_examples_nothing_leaves(answer: Answer, tmp_path: Path) -> None:
    sent = answer("min-examples = 21", tmp_path)
    assert list(sent.content) == ["site"]
    assert "20" not in str(dict(sent.content["site"]))  # not even how few they are
    assert "arrays" in answer("min-examples = 20", tmp_path).content


def test_an_open_policy_changes_nothing(answer: Answer, tmp_path: Path) -> None:
    assert list(answer("", tmp_path).content) == ["arrays", "metrics", "metadata"]


def test_weights_that_cannot_be_bounded_do_not_leave() -> None:
    """As where a client sends other arrays than it was sent."""
    asked = Message(RecordDict({"arrays": model(1, 1)}), dst_node_id=2, message_type="train")
    context = Context(1, 2, {}, RecordDict(), {})
    metrics = {"num-examples": 1.0}
    other = ArrayRecord({"v": Array(np.float32([1]))})
    sent = reply(asked, context, arrays=other, metrics=metrics, num_examples=1).content
    policy = SitePolicy(weights=WeightsRule(clip_norm=1.0))
    with pytest.raises((KeyError, ValueError)):
        under_policy(asked, context, sent, policy)
