"""What trackers show of a round."""

from __future__ import annotations

import math

import pytest

from fedwaggle.runs.events import ClientUpdated, Event, RoundFinished, RoundStarted
from fedwaggle.trackers.round_metrics import Converged, RoundFacts, Rounds, tag


def updated(client: str, seconds: float = 1.0, **metadata: object) -> ClientUpdated:
    return ClientUpdated(
        round=1, client=client, node_id="", num_examples=1, metrics={}, metadata=metadata,
        seconds=seconds, bytes=1,
    )  # fmt: skip


def facts(*updates: ClientUpdated, rounds: Rounds | None = None) -> RoundFacts:
    rounds = rounds or Rounds()
    events: list[Event] = [
        RoundStarted(round=1, learning_rate=None, sampled=1, available=1),
        *updates,
    ]
    for event in events:
        assert rounds.see(event) is None
    told = rounds.see(RoundFinished(round=1, seconds=2.0))
    assert told is not None
    return told


def test_number_fields_become_histograms_with_mean_and_greatest() -> None:
    """1 s and 3 s of training: 2 s on average."""
    told = facts(updated("a", training_time=1.0), updated("b", training_time=3))
    assert told.samples["metadata/training_time"] == [1.0, 3.0]
    assert told.scalars["metadata/training_time/mean"] == 2.0
    assert told.scalars["metadata/training_time/max"] == 3.0
    assert told.scalars["client/b/training_time"] == 3.0


def test_yes_or_no_fields_are_counted() -> None:
    told = facts(updated("a", happy=True), updated("b", happy=False), updated("c", happy=True))
    assert told.scalars["metadata/happy"] == 2.0


def test_of_several_numbers_the_last_counts() -> None:
    told = facts(updated("a", losses={"epoch_1": 2.0, "epoch_2": 0.5}), updated("b", losses=[3, 1]))
    assert told.samples["metadata/losses/last"] == [0.5, 1.0]
    assert told.scalars["client/a/losses"] == 0.5


def test_only_50_clients_have_numbers_of_their_own_and_all_count() -> None:
    told = facts(*(updated(str(each), training_time=1.0) for each in range(60)))
    assert sum(name.startswith("client/") for name in told.scalars) == 50
    assert len(told.samples["metadata/training_time"]) == 60


def test_a_client_converges_when_it_says_so_after_it_did_not() -> None:
    rounds = Rounds()
    said = {"training_time": 1.5, "training_losses": {"epoch_1": 1.0, "epoch_2": 0.5}}
    courses = [
        facts(updated("a", converged=converged, **said), rounds=rounds).converged
        for converged in (False, True, True, False, True)
    ]
    once = (Converged(1, "a", 1.5, (1.0, 0.5)),)
    assert courses == [(), once, (), (), once]


@pytest.mark.parametrize("lie", [10**400, "NaN", None, [], {}, {"x": "y"}, 1e300, [None]])
def test_what_is_no_ordinary_number_is_left_out(lie: object) -> None:
    told = facts(updated("a", training_time=lie, converged="yes"), updated("b", training_time=2.0))
    assert told.samples["metadata/training_time"] == [2.0]
    assert "client/a/training_time" not in told.scalars
    assert "metadata/converged" not in told.scalars


def test_the_servers_metrics_are_shown_as_they_are() -> None:
    finished = RoundFinished(
        round=1,
        metrics={"loss": math.nan, "per_class": [0.5, 0.25], "huge": -(10**400)},
        evaluate_metrics={"../x": 1.0},
        seconds=1.0,
    )
    told = Rounds().see(finished)
    assert told is not None
    assert math.isnan(told.scalars["global/loss"])
    assert told.scalars["global/per_class/1"] == 0.25
    assert told.scalars["global/huge"] == -math.inf
    assert told.scalars[f"evaluate/{tag('../x')}"] == 1.0


def test_names_that_had_to_be_changed_stay_apart() -> None:
    assert tag("a/b") != tag("a\\b")
    assert tag("") != ""
    assert len(tag("x" * 1000)) < 80
    assert tag("x" * 1000) != tag("x" * 1001)
    assert tag("\ud800")
