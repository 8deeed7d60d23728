"""A run's record, told the way a run tells it, with trackers attached."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

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
    to_line,
)
from fedwaggle.trackers import open_trackers
from waiting import PATIENCE

HOSTILE = "../[red]`x\n\x1b[31m"  # a client's name


def a_start() -> Event:
    return RunStarted(
        name="iid",
        strategy="CustomFedAdagrad",
        engine="local",
        num_rounds=3,
        nodes=2,
        config={"lr": 0.1, "num-server-rounds": 3},
        seed=42,
    )


def a_round(server_round: int, *, loss: float = 0.5) -> list[Event]:
    """Client 0 trains for 1.5 s a round and converges in round 2; the hostile one lies."""
    if server_round == 0:
        return [RoundFinished(round=0, metrics={"accuracy": 0.1, "loss": 2.0}, seconds=1.0)]
    of_client = {"round": server_round, "node_id": "1", "num_examples": 3, "bytes": 9}
    metadata = {
        "training_time": 1.5 * server_round,
        "converged": server_round >= 2,
        "training_losses": {"epoch_1": 1.0, "epoch_2": 0.25},
    }
    lies = {"training_time": 10**400, "converged": "yes", "training_losses": {"\n": None}}
    return [
        RoundStarted(round=server_round, learning_rate=0.1, sampled=3, available=3),
        ClientUpdated(client="0", metrics={}, metadata=metadata, seconds=2.0, **of_client),
        ClientUpdated(client=HOSTILE, metrics={}, metadata=lies, seconds=4.0, **of_client),
        ClientQuarantined(
            round=server_round,
            client="2",
            node_id="2",
            code="nan",
            reason="`w` is NaN",
            seconds=1.0,
        ),
        DecisionTaken(round=server_round, policy="Plateau", action="wait", reason="0 of 2"),
        RoundFinished(
            round=server_round,
            learning_rate=0.1,
            metrics={"accuracy": server_round / 4, "loss": loss},
            train_metrics={"train_loss": 0.75},
            updates=2,
            quarantined=1,
            missing=["3"],
            seconds=1.0,
        ),
    ]


def an_end() -> list[Event]:
    best = {"round": 3, "metric": "accuracy", "value": 0.75, "sha256": "ab"}
    return [
        CheckpointSaved(file="best.pth", bytes=3, **best),
        RunFinished(rounds=3, best=BestModel(**best), sha256="cd", seconds=3.0),
    ]


def a_resume(server_round: int) -> Event:
    return RunResumed(
        round=server_round, num_rounds=3, engine="local", nodes=2, changes={"lr": [0.1, 0.05]}
    )


def tell(run: Path, names: Sequence[str], events: Sequence[Event]) -> None:
    """Append events to a run's record, with trackers attached."""
    trackers = open_trackers(names, run, project="waggle-tests")
    with (run / "events.jsonl").open("a") as file:
        for event in events:
            file.write(to_line(event) + "\n")
    for tracker in trackers:
        tracker.close(PATIENCE)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty run folder, on a machine where nobody has set up W&B."""
    for variable in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "outputs" / "20260102T030405Z-iid"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """Collect what is logged; Flower's loggers may not propagate to where pytest listens."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("flwr.fedwaggle")
    logger.addHandler(handler)
    yield said
    logger.removeHandler(handler)


@pytest.fixture
def whole_run() -> list[Event]:
    """Return the events of a run of three rounds; the loss of round 2 is NaN."""
    rounds = [event for each in range(4) for event in a_round(each, loss=loss_of(each))]
    return [a_start(), *rounds, *an_end()]


@pytest.fixture
def interrupted_run() -> tuple[list[Event], list[Event]]:
    """Return the same run in two parts: killed after round 2, resumed from a snapshot of 1."""
    first = [event for each in range(3) for event in a_round(each, loss=loss_of(each))]
    second = [event for each in (2, 3) for event in a_round(each, loss=loss_of(each))]
    return [a_start(), *first], [a_resume(1), *second, *an_end()]


def loss_of(server_round: int) -> float:
    return float("nan") if server_round == 2 else 1 / (server_round + 1)


@pytest.fixture(name="tell")
def tell_fixture() -> Callable[[Path, Sequence[str], Sequence[Event]], None]:
    """Return the function that tells a run."""
    return tell
