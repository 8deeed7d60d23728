"""What a report knows of a run, from its events alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fedwaggle.runs.events import (
    ClientQuarantined,
    ClientUpdated,
    Event,
    RoundFinished,
    RoundStarted,
    RunFailed,
    RunResumed,
    RunStarted,
    UnknownEvent,
)
from fedwaggle.runs.metadata_fields import chartable_fields
from fedwaggle.runs.report.charts.cells import client_facts, columns, thin, training_seconds
from fedwaggle.runs.report.charts.fields import drawn_fields
from fedwaggle.runs.report.charts.models import best_value, families, rate_steps
from fedwaggle.runs.report.charts.spreads import by_round
from fedwaggle.runs.report.fields import FieldTable
from fedwaggle.runs.report.stats import far_above
from fedwaggle.runs.report.story import RunStory, State, tell
from fedwaggle.runs.report.summary import notes, status, tiles
from fedwaggle.runs.report.tables import tables
from runs.report_data import Federation, run_events

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def started() -> RunStarted:
    return RunStarted(
        time=NOON,
        name="r",
        strategy="S",
        engine="local",
        num_rounds=3,
        nodes=3,
        config={},
        seed=0,
    )


def begun(server_round: int, *clients: str, lr: float = 0.1) -> RoundStarted:
    return RoundStarted(
        time=NOON,
        round=server_round,
        learning_rate=lr,
        sampled=len(clients),
        available=3,
        clients=list(clients),
        bytes_down=10,
    )


def update(server_round: int, client: str, **metadata: Any) -> ClientUpdated:
    return ClientUpdated(
        time=NOON,
        round=server_round,
        client=client,
        node_id="1",
        num_examples=5,
        metrics={},
        metadata=metadata or None,
        seconds=2.0,
        bytes=7,
    )


def refused(server_round: int, client: str, phase: str = "train") -> ClientQuarantined:
    return ClientQuarantined(
        time=NOON,
        round=server_round,
        client=client,
        node_id="1",
        code="not-finite",
        reason="NaN",
        seconds=1.0,
        phase=phase,
    )


def ended(server_round: int, *, missing: Sequence[str] = (), **metrics: float) -> RoundFinished:
    return RoundFinished(
        time=NOON,
        round=server_round,
        metrics=metrics,
        missing=list(missing),
        seconds=3.0,
        bytes_up=20,
    )


def states(story: RunStory) -> dict[tuple[str, int], str]:
    return {(cell.client, cell.round): cell.state.name for cell in story.cells}


def test_each_sampled_client_has_one_state_a_round() -> None:
    story = tell(
        [
            started(),
            begun(1, "a", "b", "c", "d", "e"),
            update(1, "a", converged=True),
            update(1, "b", converged=False),
            update(1, "c"),
            refused(1, "d"),
            ended(1, missing=["e"]),
            begun(2, "a", "b"),
            update(2, "a", converged=True),
        ]
    )
    assert states(story) == {
        ("a", 1): "CONVERGED",
        ("b", 1): "LEARNING",
        ("c", 1): "ADMITTED",
        ("d", 1): "QUARANTINED",
        ("e", 1): "MISSING",
        ("a", 2): "CONVERGED",
        ("b", 2): "WAITING",
    }


def test_a_reply_refused_in_evaluation_leaves_the_training_as_it_was() -> None:
    story = tell([begun(1, "a"), update(1, "a", converged=True), refused(1, "a", "evaluate")])
    assert states(story) == {("a", 1): "CONVERGED"}
    assert story.quarantines.count == 1


def test_superseded_events_are_left_out_and_counted() -> None:
    story = tell(
        [
            started(),
            begun(1, "a"),
            ended(1, accuracy=0.5),
            begun(2, "b"),
            ended(2, accuracy=0.9),
            RunResumed(time=NOON, round=1, num_rounds=2, engine="ray", nodes=3),
            begun(2, "c"),
            ended(2, accuracy=0.6),
        ]
    )
    assert [end.metrics["accuracy"] for end in story.finished_rounds] == [0.5, 0.6]
    assert story.superseded == 2
    assert [note.text for note in notes(story, [])] == [
        "Resumed after round 1.",
        "2 events of rounds that a resume ran again are left out; they stay in events.jsonl.",
    ]


def test_wall_time_leaves_out_the_pause_before_a_resume() -> None:
    """10 s of work, an hour of nothing, 5 s of work."""
    hour = timedelta(hours=1)
    story = tell(
        [
            started(),
            ended(1).model_copy(update={"time": NOON + timedelta(seconds=10)}),
            RunResumed(time=NOON + hour, round=1, num_rounds=2, engine="local", nodes=3),
            ended(2).model_copy(update={"time": NOON + hour + timedelta(seconds=5)}),
        ]
    )
    assert story.wall_seconds == 15.0


def test_events_of_a_newer_version_are_counted_by_kind() -> None:
    story = tell([started(), *[UnknownEvent(event="moon-landed", raw={"v": 2})] * 3])
    assert notes(story, [])[0].text == "3 events of a newer version are left out: moon-landed (3)."


@pytest.mark.parametrize(
    ("events", "is_live", "word"),
    [
        ([started()], True, "running"),
        ([started()], False, "interrupted"),
        ([started(), RunFailed(error="E: x", round=1, seconds=1.0)], False, "failed"),
        (run_events(Federation(rounds=1)), False, "finished"),
    ],
)
def test_status(events: list[Event], is_live: bool, word: str) -> None:
    assert status(tell(events), is_live=is_live).word == word


@pytest.mark.parametrize("events", [[], [started()], [started(), begun(1, "a")]])
def test_a_run_with_no_finished_round_has_a_summary(events: list[Event]) -> None:
    shown = {tile.label: tile.value for tile in tiles(tell(events))}
    assert shown["best model"] == "none yet"
    assert shown["bytes up"] == "0 B"


def test_refused_evaluations_are_told_beside_the_training_not_in_its_share() -> None:
    """Of two trained clients one was refused; of the evaluations, only the refused is known."""
    events = [begun(1, "a", "b"), update(1, "a"), refused(1, "b"), refused(1, "a", "evaluate")]
    (tile,) = (tile for tile in tiles(tell(events)) if tile.label == "quarantined")
    assert (tile.value, tile.detail) == ("1", "of 2 training replies, and 1 in evaluation")


def test_the_best_of_a_loss_is_the_least_and_of_another_metric_the_largest() -> None:
    loss = best_value(tell([ended(1, loss=0.5), ended(2, loss=0.2), ended(3, loss=0.4)]))
    score = best_value(tell([ended(1, f1=0.5), ended(2, f1=0.2), ended(3, f1=float("nan"))]))
    assert loss is not None
    assert score is not None
    assert (loss.metric, loss.value, loss.round) == ("loss", 0.2, 2)
    assert (score.metric, score.value, score.round) == ("f1", 0.5, 1)


def test_one_metric_measured_by_server_and_clients_is_one_family() -> None:
    end = ended(1, loss=0.5).model_copy(
        update={"train_metrics": {"train_loss": 0.7}, "evaluate_metrics": {"loss": 0.6, "l": [1.0]}}
    )
    (family,) = families([end])
    assert list(family.curves) == [
        ("metrics", "loss"),
        ("evaluate_metrics", "loss"),
        ("train_metrics", "train_loss"),
    ]
    assert family.main == {1: 0.5}


def test_steps_of_the_learning_rate_are_where_it_changes() -> None:
    story = tell([begun(1, lr=0.1), begun(2, lr=0.1), begun(3, lr=0.05), begun(4, lr=0.05)])
    assert rate_steps(story) == [(3, 0.05)]


def test_a_history_is_in_the_order_in_which_its_keys_count() -> None:
    said = {"losses": {"epoch_10": 1.0, "epoch_2": 2.0}, "nested": {"a": 1, "b": 2}, "list": [3, 4]}
    assert list(chartable_fields(said)) == [
        ("losses", [2.0, 1.0]),
        ("nested.a", 1.0),
        ("nested.b", 2.0),
        ("list", [3.0, 4.0]),
    ]


def test_numbers_that_are_not_finite_come_as_words() -> None:
    assert (
        str(list(chartable_fields({"a": "Infinity", "b": ["NaN", 1]})))
        == "[('a', inf), ('b', [nan, 1.0])]"
    )


def test_a_client_with_a_million_fields_fills_no_page() -> None:
    table = FieldTable()
    table.add(0, {f"f{i}": i for i in range(10_000)})
    table.add(1, {f"g{i}": i for i in range(10_000)})
    assert len(table.numbers) == 64
    story = tell([begun(1, "a"), update(1, "a", **{f"f{i}": i for i in range(30)})])
    assert (len(drawn_fields(story).numbers), drawn_fields(story).left_out) == (12, 18)


def test_a_tight_group_has_no_outliers() -> None:
    assert far_above([1.0, 1.01, 1.02, 1.0, 1.3]) == []
    assert far_above([1.0, 1.01, 1.02, 1.0, 1.6]) == [4]
    assert far_above([1.0, 1.0, 9.0]) == []  # too few to tell


def test_stragglers_are_told_by_name() -> None:
    times = {"a": 1.0, "b": 1.1, "c": 0.9, "d": 1.0, "e": 7.0}
    events = [update(1, name, training_time=seconds) for name, seconds in times.items()]
    slow = [client.name for client in client_facts(tell(events)) if client.slow]
    assert slow == ["e"]


def test_who_claims_an_absurd_time_is_a_straggler_and_moves_no_figure_of_the_others() -> None:
    times = {"a": 1.0, "b": 1.1, "c": 0.9, "d": 1.0, "e": 1e308}
    story = tell([update(1, name, training_time=seconds) for name, seconds in times.items()])
    _, (lies,) = by_round(story, training_seconds(story))
    assert (lies.count, lies.median, lies.high) == (4, 1.0, 1.1)
    told = {client.name: (client.slow, client.seconds) for client in client_facts(story)}
    assert (told["e"], told["b"]) == ((1, None), (0, 1.1))


def test_without_metadata_the_servers_clock_is_the_training_time() -> None:
    (client,) = client_facts(tell([update(1, "a")]))
    assert client.seconds == 2.0


def test_cells_stay_below_their_limit_and_troubled_clients_come_first() -> None:
    """2,000 clients in 40 rounds are 80,000 cells, more than a page holds."""
    kind = Federation(rounds=40, clients=2000, fraction=1.0, epochs=5)
    story = tell(run_events(kind))
    facts_of = client_facts(story)
    fields = drawn_fields(story)
    cells = columns(story, facts_of, fields.numbers, fields.booleans, fields.histories)
    assert len(story.cells) == 80_000
    assert not cells.complete
    assert len(cells.data["rounds"]) < 60_000
    assert len(cells.drawn) == 120
    worst = max(facts_of, key=lambda client: client.quarantined + client.missing)
    assert worst.id in cells.drawn


def test_thinning_keeps_the_last_value() -> None:
    assert thin(list(range(100)), 4) == [24, 49, 74, 99]


def test_states_have_a_letter_each() -> None:
    assert len({state.code for state in State}) == len(State)


def test_updates_that_were_out_of_line_have_a_table_with_what_of_them_counted() -> None:
    """Of three updates, one is shortened to a tenth and one counts 600 of its 10,000 examples."""
    story = tell(
        [
            started(),
            begun(1, "a", "b", "c"),
            update(1, "a"),
            update(1, "b").model_copy(update={"scale": 0.1}),
            update(1, "c").model_copy(update={"num_examples": 10_000, "weight": 600}),
        ]
    )
    (table,) = [one for one in tables(story, []) if one.key == "bounded"]
    assert [[cell.value for cell in row.cells[2:]] for row in table.rows] == [
        [10.0, 5.0, 5.0],
        [100.0, 10_000.0, 600.0],
    ]
    assert [row.cells[1].text for row in table.rows] == ["b", "c"]
    plain = tell([started(), begun(1, "a"), update(1, "a")])
    assert "bounded" not in [one.key for one in tables(plain, [])]
