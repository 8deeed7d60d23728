"""The table of a run's rounds: aligned, within 80 columns, with what the events say."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from fedwaggle.runs.events import (
    BestModel,
    CheckpointSaved,
    ClientQuarantined,
    ClientUpdated,
    DecisionTaken,
    Event,
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunResumed,
    RunStarted,
)
from fedwaggle.runs.record import record_of
from fedwaggle.runs.terminal.rounds import RoundTable
from fedwaggle.runs.terminal.summary import next_command, summary

START = RunStarted(
    name="a",
    strategy="CustomFedAdagrad",
    engine="local",
    num_rounds=20,
    nodes=10,
    config={"dataset": "digits", "partitioner": "iid"},
    seed=7,
    num_parameters=44_426,
)


def saved(number: int, value: float) -> CheckpointSaved:
    return CheckpointSaved(
        round=number, metric="accuracy", value=value, file="best.pth", sha256="", bytes=1
    )


def a_round(number: int, accuracy: float, *, converged: tuple[bool, ...] = ()) -> list[Event]:
    updates = [
        ClientUpdated(
            round=number,
            client=str(i),
            node_id=str(i),
            num_examples=6,
            seconds=1.0,
            bytes=1,
            metrics={},
            metadata={"converged": each},
        )
        for i, each in enumerate(converged)
    ]
    finished = RoundFinished(
        round=number,
        learning_rate=0.01,
        metrics={"accuracy": accuracy, "loss": 1.25},
        updates=len(updates),
        quarantined=1,
        seconds=1.5,
    )
    started = RoundStarted(round=number, learning_rate=0.01, sampled=5, available=10)
    return [started, *updates, saved(number, accuracy), finished]


def lines_of(*events: Event, about: tuple[str, ...] = ()) -> list[str]:
    table = RoundTable(about)
    return [line.plain for event in events for line in table.add(event)]


INITIAL = RoundFinished(round=0, metrics={"accuracy": 0.1, "loss": 2.5}, seconds=0.5)


def test_what_runs_stands_above_a_row_for_each_round() -> None:
    shown = lines_of(
        START, INITIAL, *a_round(1, 0.8125, converged=(True, False)), about=("2 workers",)
    )
    assert shown == [
        "CustomFedAdagrad, 44,426 parameters",
        "digits, iid · 10 nodes · 2 workers · seed 7",
        "",
        " round  accuracy     loss        lr  clients  converged  quarantined  seconds",
        " 0/20    10.00 %      2.5                                                 0.5",
        " 1/20*   81.25 %     1.25      0.01      2/5          1            1      1.5",
    ]


def test_a_row_has_80_columns_at_the_most() -> None:
    """A metric with a long name, many rounds, many clients."""
    start = START.model_copy(update={"num_rounds": 1000})
    name = "balanced_accuracy_of_all_classes"
    finished = RoundFinished(
        round=1000,
        learning_rate=1.2345e-05,
        metrics={name: 0.5, "validation_loss_after_training": 12345.678},
        updates=50,
        seconds=123.456,
    )
    started = RoundStarted(round=1000, learning_rate=1e-5, sampled=50, available=10_000)
    rows = lines_of(start, started, finished)[-2:]
    assert len(rows[0]) == len(rows[1])
    assert len(rows[0]) == 79


def test_where_clients_alone_test_the_model_the_table_begins_with_the_first_round() -> None:
    finished = RoundFinished(
        round=1, evaluate_metrics={"mae": 3.0}, train_metrics={"train_loss": 0.5}, seconds=1.0
    )
    shown = lines_of(START, RoundFinished(round=0, seconds=0.1), finished)
    assert shown[3].split() == [
        *("round", "mae", "train_loss", "lr", "clients", "converged", "quarantined", "seconds")
    ]
    assert shown[4].split() == ["1/20", "3", "0.5", "1"]


def test_a_metric_of_another_metric_s_name_is_shown_once() -> None:
    finished = RoundFinished(round=1, metrics={"loss": 0.5}, seconds=1.0)
    assert lines_of(START, finished)[3].split().count("loss") == 1


def test_a_resume_and_a_decision_have_lines_of_their_own() -> None:
    resumed = RunResumed(
        round=3, engine="local", num_rounds=20, nodes=10, changes={"lr": [0.01, 0.02]}
    )
    decision = DecisionTaken(
        round=4, policy="stop-when-converged", action="stop", reason="4 of 5 have"
    )
    assert lines_of(resumed, decision) == [
        "resumed after round 3",
        "  lr: 0.01 before, 0.02 now",
        "  stop-when-converged: stop, 4 of 5 have",
    ]


def test_what_a_client_says_is_never_markup() -> None:
    decision = DecisionTaken(round=1, policy="p", action="rest", reason="[red]x[/] \x1b[31mboom")
    assert lines_of(decision) == ["  p: rest, [red]x[/] boom"]


def box(*events: Event, path: Path = Path("outputs/bees")) -> str:
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.print(summary(record_of(path, events), here=path.parent))
    return captured.get()


def test_the_end_names_the_best_model_the_time_and_the_trouble(tmp_path: Path) -> None:
    """Two replies were refused for the same reason, and one client never answered."""
    (tmp_path / "best.pth").touch()
    refused = [
        ClientQuarantined(round=1, client=c, node_id=c, code="non-finite", reason="", seconds=1.0)
        for c in "ab"
    ]
    finished = RoundFinished(round=1, missing=["c"], quarantined=2, seconds=61.0)
    best = BestModel(round=1, metric="accuracy", value=0.8125, sha256="")
    end = RunFinished(rounds=1, best=best, sha256="", seconds=61.0)
    shown = box(START, *refused, saved(1, 0.8125), finished, end, path=tmp_path)
    assert "finished" in shown.splitlines()[0]
    assert "accuracy 81.25 % in round 1" in shown
    assert "1:01, 1 of 20 rounds" in shown
    assert "2 quarantined (non-finite 2), 1 missing" in shown
    assert "best.pth" in shown
    assert "report.html" not in shown


@pytest.mark.parametrize(
    ("events", "app", "command"),
    [
        ([START, RunFinished(rounds=1, sha256="", seconds=1.0)], "x", "waggle report bees --open"),
        ([START], "bee-garden", "waggle run bee-garden --resume bees"),
        ([START], "", ""),
    ],
)
def test_what_to_do_next_is_a_command(events: list[Event], app: str, command: str) -> None:
    """An app that is no folder cannot be resumed by a command."""
    assert next_command(record_of(Path("outputs/bees"), events), app) == command
