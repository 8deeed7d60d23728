"""A run as typed values, whatever state it is in."""

from __future__ import annotations

import doctest
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedwaggle.errors import RunError
from fedwaggle.runs.events import (
    BestModel,
    CheckpointSaved,
    ClientQuarantined,
    ClientUpdated,
    DecisionTaken,
    Event,
    RoundFinished,
    RoundStarted,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    to_line,
)
from fedwaggle.runs.files import LineFile
from fedwaggle.runs.reading import current_events
from fedwaggle.runs.record import load, record_of
from waiting import PATIENCE

START = RunStarted(
    name="iid",
    strategy="CustomFedAdagrad",
    engine="local",
    num_rounds=2,
    nodes=2,
    config={"lr": 0.1},
    seed=42,
    versions={"python": "3.11"},
)
BEST = {"round": 2, "metric": "accuracy", "value": 0.5, "sha256": "ab"}
END = RunFinished(rounds=2, best=BestModel(**BEST), metrics={"loss": 0.5}, sha256="cd", seconds=9.0)


def round_of(server_round: int) -> list[Event]:
    return [
        RoundStarted(
            round=server_round, learning_rate=0.1, sampled=3, available=3, clients=["0", "1", "2"]
        ),
        ClientUpdated(
            round=server_round,
            client="0",
            node_id="7",
            num_examples=60,
            metrics={"train_loss": 0.25},
            metadata={"training_time": 1.5, "converged": True, "training_losses": {"epoch_1": 0.5}},
            seconds=2.0,
            bytes=10,
        ),
        ClientQuarantined(
            round=server_round, client="1", node_id="8", code="nan", reason="NaN", seconds=1.0
        ),
        DecisionTaken(round=server_round, policy="Plateau", action="wait", reason="1 of 2"),
        RoundFinished(
            round=server_round,
            metrics={"accuracy": server_round / 4, "loss": math.nan},
            updates=1,
            quarantined=1,
            missing=["2"],
            phases={"train": 2.5},
            seconds=3.0,
        ),
    ]


ROUND_0: list[Event] = [RoundFinished(round=0, metrics={"accuracy": 0.1}, seconds=1.0)]
WHOLE: list[Event] = [
    START,
    *ROUND_0,
    *round_of(1),
    *round_of(2),
    CheckpointSaved(file="best.pth", bytes=3, **BEST),
    END,
]


def write(folder: Path, events: list[Event], more: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    lines = "".join(to_line(event) + "\n" for event in events)
    (folder / "events.jsonl").write_text(lines + more)
    return folder


def test_a_finished_run_is_read_whole(tmp_path: Path) -> None:
    run = load(write(tmp_path / "run", WHOLE))
    assert (run.status, run.name, run.seed, run.config) == ("finished", "iid", 42, {"lr": 0.1})
    assert (run.num_rounds, run.rounds_done, run.seconds) == (2, 2, 7.0)  # 1 + 3 + 3
    assert (run.best, run.sha256, run.error) == (BestModel(**BEST), "cd", "")
    assert [each.round for each in run.rounds] == [0, 1, 2]
    told = run.rounds[2]
    assert (told.finished, told.learning_rate, told.metrics["accuracy"]) == (True, 0.1, 0.5)
    assert math.isnan(told.metrics["loss"])  # type: ignore[arg-type]
    assert [update.client for update in told.updates] == ["0"]
    assert [refused.client for refused in told.quarantined] == ["1"]
    assert told.missing == ("2",)
    assert [decision.action for decision in told.decisions] == ["wait"]


def test_a_run_that_says_nothing_more_and_has_no_writer_was_interrupted(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", WHOLE[:-4])
    run = load(folder)
    assert (run.status, run.rounds_done) == ("interrupted", 1)
    assert run.rounds[-1].finished is False


def test_a_run_with_a_writer_is_running_and_reading_does_not_disturb_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", WHOLE[:-4])
    writer = LineFile(folder / "events.jsonl")
    assert load(folder).status == "running"
    writer.append(to_line(END))
    assert load(folder).status == "finished"
    writer.close()


def test_a_killed_run_was_interrupted(tmp_path: Path) -> None:
    """The lock goes with the process, also by SIGKILL."""
    folder = write(tmp_path / "run", [START])
    program = """
import sys
from pathlib import Path
from fedwaggle.runs.files import LineFile
writer = LineFile(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", program, str(folder / "events.jsonl")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        assert load(folder).status == "running"
        process.kill()
    assert load(folder).status == "interrupted"


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    failed = RunFailed(error="ValueError: boom", round=1, seconds=3.0)
    run = load(write(tmp_path / "run", [START, *ROUND_0, failed]))
    assert (run.status, run.error) == ("failed", "ValueError: boom")


def test_a_resumed_run_has_each_round_once(tmp_path: Path) -> None:
    resumed = RunResumed(round=1, num_rounds=4, engine="ray", nodes=2, changes={"lr": [0.1, 0.05]})
    failed = RunFailed(error="boom", round=2, seconds=3.0)
    events = [START, *ROUND_0, *round_of(1), *round_of(2), failed, resumed, *round_of(2)]
    run = load(write(tmp_path / "run", events))
    assert [each.round for each in run.rounds] == [0, 1, 2]
    assert [len(each.updates) for each in run.rounds] == [0, 1, 1]
    assert (run.status, run.error, run.resumed) == ("interrupted", "", 1)
    assert (run.num_rounds, run.engine, run.config) == (4, "ray", {"lr": 0.05})


def test_half_a_line_unknown_kinds_and_newer_versions_are_left_out(tmp_path: Path) -> None:
    more = '{"v": 2, "event": "round-finished", "round": 9}\n{"v": 1, "event": "moon-landed"}\n{"v"'
    run = load(write(tmp_path / "run", WHOLE, more))
    assert (run.status, len(run.rounds)) == ("finished", 3)


def test_a_folder_without_a_run_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=str(tmp_path)):
        load(tmp_path)


def test_a_run_that_has_not_begun_can_be_read(tmp_path: Path) -> None:
    run = load(write(tmp_path / "run", []))
    assert (run.status, run.rounds, run.seed, run.seconds) == ("interrupted", (), None, 0)
    assert list(run.to_pandas().columns)[:2] == ["round", "client"]
    assert len(run.rounds_to_pandas()) == 0


def test_a_table_has_a_row_for_each_update(tmp_path: Path) -> None:
    table = load(write(tmp_path / "run", WHOLE)).to_pandas()
    assert list(table["round"]) == [1, 2]
    assert list(table["metadata.training_time"]) == [1.5, 1.5]
    assert list(table["metadata.converged"]) == [True, True]
    assert table["metadata.training_losses"][0] == {"epoch_1": 0.5}
    assert list(table["metrics.train_loss"]) == [0.25, 0.25]
    assert table["num_examples"].sum() == 120


def test_a_table_has_a_row_for_each_round(tmp_path: Path) -> None:
    table = load(write(tmp_path / "run", WHOLE)).rounds_to_pandas()
    assert list(table["round"]) == [0, 1, 2]
    assert list(table["metrics.accuracy"]) == [0.1, 0.25, 0.5]
    assert list(table["quarantined"]) == [0, 1, 1]
    assert list(table["missing"]) == [0, 1, 1]
    assert list(table["phases.train"])[1:] == [2.5, 2.5]


def test_a_record_cannot_be_changed_by_its_reader() -> None:
    run = record_of(Path("run"), WHOLE)
    with pytest.raises(AttributeError):
        run.rounds[1].learning_rate = 0.5  # type: ignore[misc]


def test_reading_a_run_needs_neither_torch_nor_flower_nor_pandas(tmp_path: Path) -> None:
    program = """
import sys
from fedwaggle.runs import load
load(sys.argv[1])
heavy = {"torch", "flwr", "pandas", "wandb", "plotly", "numpy"} & set(sys.modules)
sys.exit(str(heavy) if heavy else 0)
"""
    folder = write(tmp_path / "run", WHOLE)
    subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        check=True,
        timeout=PATIENCE,
        env=dict(os.environ),
    )


def guide_update(server_round: int, client: str, examples: int, seconds: float) -> ClientUpdated:
    return ClientUpdated(
        round=server_round,
        client=client,
        node_id=client,
        num_examples=examples,
        metrics={},
        metadata={
            "training_time": seconds,
            "converged": server_round == 2,
            "training_losses": {"epoch_1": 1.0, "epoch_2": 0.5},
        },
        seconds=seconds,
        bytes=1,
    )


def guide_round(server_round: int, accuracy: float, *events: Event) -> list[Event]:
    counts = {
        "updates": sum(isinstance(each, ClientUpdated) for each in events),
        "quarantined": sum(isinstance(each, ClientQuarantined) for each in events),
    }
    metrics = {"accuracy": accuracy}
    return [*events, RoundFinished(round=server_round, metrics=metrics, seconds=1.0, **counts)]


def test_the_guide_says_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples of docs/reading-runs.md are run."""
    best = {"round": 2, "metric": "accuracy", "value": 0.75, "sha256": "ab"}
    refused = ClientQuarantined(
        round=2,
        client="1",
        node_id="1",
        code="non-finite",
        reason="conv1.weight has 3 values that are not finite",
        seconds=1.0,
    )
    told = [
        START,
        *guide_round(0, 0.125),
        *guide_round(1, 0.5, guide_update(1, "0", 60, 1.5), guide_update(1, "1", 20, 3.0)),
        *guide_round(2, 0.75, guide_update(2, "0", 60, 1.5), refused),
        RunFinished(rounds=2, best=BestModel(**best), sha256="cd", seconds=9.0),
    ]
    (tmp_path / "outputs").mkdir()
    write(tmp_path / "outputs" / "20260102T030405Z-iid", told)
    monkeypatch.chdir(tmp_path)
    guide = Path(__file__).parents[2] / "docs" / "reading-runs.md"
    result = doctest.testfile(
        str(guide), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert (result.failed, result.attempted > 10) == (0, True)


@given(st.lists(st.one_of(st.just("event"), st.integers(-1, 4)), max_size=12), st.data())
def test_a_record_read_event_by_event_is_that_of_the_events_that_count(steps, data) -> None:
    """However often a run is resumed: the reader forgets what `current_events` leaves out."""
    events: list[Event] = [WHOLE[0]]
    for step in steps:
        if isinstance(step, int):
            events.append(RunResumed(round=step, num_rounds=4, engine="local", nodes=2))
        else:
            events.append(data.draw(st.sampled_from(WHOLE[1:])))
    kept = current_events(events)
    assert record_of(Path("run"), events) == record_of(Path("run"), kept)
