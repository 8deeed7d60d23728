"""Policies of sites over the whole way: the client's reply, the strategy, the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import FedAvg

from fedwaggle.client import reply
from fedwaggle.runs import Run
from fedwaggle.runs.events import ClientQuarantined, ClientUpdated, NotRepeatable, SiteMeasures
from fedwaggle.runs.reading import read_events
from fedwaggle.strategy import Waggle


@dataclass(frozen=True)
class Facts:
    """What these clients report."""

    seconds: float = 0.0
    power: float = 0.0


@dataclass(frozen=True)
class Needed:
    """A contract without defaults."""

    seconds: float


class Strategy(Waggle[Facts], FedAvg):
    """The strategy under test."""


class Strict(Waggle[Needed], FedAvg):
    """One that needs a field."""


def model(*values: float) -> ArrayRecord:
    return ArrayRecord({"w": Array(np.array(values, dtype=np.float32))})


def run_with(
    make_grid: Callable[..., Any],
    folder: Path,
    policies: Mapping[int, str],
    *,
    strategy: type[Waggle[Any]] = Strategy,
    metadata: object = Facts(2.26, 250.0),
) -> list[Any]:
    """Run two rounds of three nodes, some of which have a policy; return the record."""

    def train(msg, context):
        arrays = ArrayRecord({"w": Array(msg.content["arrays"]["w"].numpy() + np.float32([3, 4]))})
        metrics = {"loss": 0.1234}
        return reply(
            msg, context, arrays=arrays, metrics=metrics, num_examples=20, metadata=metadata
        )

    grid = make_grid(train, num_nodes=3)
    for index, text in policies.items():
        path = folder / f"policy{index}.toml"
        path.write_text(text)
        grid.contexts[100 + index].node_config["site-policy"] = str(path)
    with Run.create(folder / "outputs") as run:
        strategy(run=run, fraction_train=1.0, fraction_evaluate=0.0).start(
            grid, model(1, 1), num_rounds=2
        )
    return list(read_events(run.path / "events.jsonl"))


def of(events: list[Any], kind: type, client: str) -> list[Any]:
    return [event for event in events if isinstance(event, kind) and event.client == client]


def test_the_record_lists_what_each_site_did(make_grid: Callable[..., Any], tmp_path: Path) -> None:
    policy = """
        [metadata.fields]
        seconds = { round = 0 }
        power = { allow = false }
        [metrics.loss]
        round = 1
        [weights]
        clip-norm = 100.0
    """
    events = run_with(make_grid, tmp_path, {1: policy})
    update = of(events, ClientUpdated, "1")[0]
    assert update.site == SiteMeasures(
        withheld=["metadata.power"], changed=["metrics.loss", "metadata.seconds"], clip_norm=100.0
    )
    assert update.metadata == {"seconds": 2.0, "power": 0.0}
    assert update.metrics["loss"] == 0.1
    assert [each.site for each in of(events, ClientUpdated, "0")] == [None, None]


def test_a_required_field_that_is_withheld_is_a_reason(
    make_grid: Callable[..., Any], tmp_path: Path
) -> None:
    """The weights are used; why there is no metadata is recorded."""
    events = run_with(
        make_grid,
        tmp_path,
        {1: "[metadata.fields]\nseconds = { allow = false }"},
        strategy=Strict,
        metadata=Needed(2.0),
    )
    first, second = of(events, ClientUpdated, "1")
    assert first.metadata_error.code == second.metadata_error.code == "withheld"
    assert "the site's policy withholds seconds" in first.metadata_error.message


def test_a_site_with_too_few_examples_costs_only_itself(
    make_grid: Callable[..., Any], tmp_path: Path
) -> None:
    events = run_with(make_grid, tmp_path, {1: "min-examples = 1000"})
    assert [bad.code for bad in of(events, ClientQuarantined, "1")] == ["withheld"] * 2
    assert len(of(events, ClientUpdated, "0")) == len(of(events, ClientUpdated, "2")) == 2


def test_a_policy_that_cannot_be_read_lets_nothing_out(
    make_grid: Callable[..., Any], tmp_path: Path
) -> None:
    events = run_with(make_grid, tmp_path, {1: "min-example = 3"})
    bad = of(events, ClientQuarantined, "1")[0]
    assert bad.code == "client-raised"
    assert "min-example: unknown key" in bad.reason


def test_noise_makes_a_run_not_repeatable(make_grid: Callable[..., Any], tmp_path: Path) -> None:
    policy = "[weights]\nclip-norm = 1.0\nepsilon = 8.0\ndelta = 1e-5"
    events = run_with(make_grid, tmp_path, {1: policy})
    (cause,) = [event for event in events if isinstance(event, NotRepeatable)]
    assert (cause.cause, cause.round) == ("noise", 1)
    assert "client 1 adds noise" in cause.reason
