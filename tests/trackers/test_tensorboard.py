"""What TensorBoard has of a run, read back with its own reader."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from fedwaggle.runs import Request, open_folder
from fedwaggle.runs.events import Event, RoundFinished
from fedwaggle.trackers import open_trackers

Tell = Callable[[Path, Sequence[str], Sequence[Event]], None]


def read(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0}).Reload()


def values(reader: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(each.step, float(make_ndarray(each.tensor_proto))) for each in reader.Tensors(tag)]


def texts(reader: EventAccumulator, tag: str) -> list[tuple[int, str]]:
    return [
        (each.step, make_ndarray(each.tensor_proto).item().decode()) for each in reader.Tensors(tag)
    ]


def test_a_run_is_shown_whole(
    run: Path, whole_run: list[Event], tell: Tell, warnings: list[str]
) -> None:
    tell(run, ["tensorboard"], whole_run)
    assert warnings == []
    reader = read(run)
    accuracies = [(step, round(value, 6)) for step, value in values(reader, "global/accuracy")]
    assert accuracies == [(0, 0.1), (1, 0.25), (2, 0.5), (3, 0.75)]
    losses = values(reader, "global/loss")
    assert losses[1] == (1, 0.5)
    assert math.isnan(losses[2][1])
    assert values(reader, "client/0/training_time") == [(1, 1.5), (2, 3.0), (3, 4.5)]
    assert values(reader, "metadata/converged") == [(1, 0.0), (2, 1.0), (3, 1.0)]
    (_, _, last) = reader.Tensors("reply-seconds")
    buckets = make_ndarray(last.tensor_proto)  # (30, 3): left, right, count
    assert (buckets[0, 0], buckets[-1, 1], buckets[:, 2].sum()) == (2.0, 4.0, 2.0)
    assert texts(reader, "quarantines")[0] == (1, "`2: nan: 'w' is NaN`")
    assert texts(reader, "decisions")[0] == (1, "`Plateau: wait (0 of 2)`")
    assert texts(reader, "run/started")[0][0] == 0
    assert texts(reader, "run/finished") == [(3, "`3 rounds, final model cd`")]
    round_1 = next(event for event in whole_run if isinstance(event, RoundFinished))
    assert reader.Tensors("global/accuracy")[0].wall_time == round_1.time.timestamp()


def test_a_resumed_run_has_neither_gaps_nor_doubles(
    run: Path,
    interrupted_run: tuple[list[Event], list[Event]],
    tell: Tell,
    warnings: list[str],
) -> None:
    before, after = interrupted_run
    tell(run, ["tensorboard"], before)
    tell(run, ["tensorboard"], after)
    assert warnings == []
    reader = read(run)
    assert [step for step, _ in values(reader, "global/accuracy")] == [0, 1, 2, 3]
    assert [step for step, _ in texts(reader, "quarantines")] == [1, 2, 3]
    assert texts(reader, "run/resumed") == [(1, "`from round 1`")]


def test_names_and_numbers_of_a_hostile_client_break_nothing(
    run: Path, whole_run: list[Event], tell: Tell, warnings: list[str]
) -> None:
    tell(run, ["tensorboard"], whole_run)
    assert warnings == []
    tags = read(run).Tags()["tensors"]
    assert all(tag.isascii() and tag.isprintable() and ".." not in tag for tag in tags)
    assert [tag for tag in tags if tag.startswith("client/")] == [
        "client/0/training_time",
        "client/0/training_losses",
    ]


def test_a_run_folder_shows_itself_from_its_start_through_a_resume_to_its_end(
    tmp_path: Path, interrupted_run: tuple[list[Event], list[Event]], warnings: list[str]
) -> None:
    before, after = interrupted_run
    with open_folder(tmp_path, name="iid", request=Request()) as run:
        run.attach(open_trackers(["tensorboard"], run.path, project=""))
        for event in before:
            run.record(event)
    with open_folder(tmp_path, request=Request(), resume="latest") as run:
        run.attach(open_trackers(["tensorboard"], run.path, project=""))
        for event in after:
            run.record(event)
    assert [said for said in warnings if "Tracker" in said] == []
    assert [step for step, _ in values(read(run.path), "global/accuracy")] == [0, 1, 2, 3]
