"""What MLflow has of a run, read back with its own client from its database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from fedwaggle.runs.events import Event

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # in what MLflow imports

Tell = Callable[[Path, Sequence[str], Sequence[Event]], None]


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def shown(run: Path) -> tuple[MlflowClient, Run]:
    client = MlflowClient(f"sqlite:///{run.parent / 'mlflow.db'}")
    (experiment,) = [each for each in client.search_experiments() if each.name != "Default"]
    (found,) = client.search_runs([experiment.experiment_id])
    return client, found


def steps(client: MlflowClient, run: Run, name: str) -> list[tuple[int, float]]:
    return [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, name)]


def test_a_run_is_shown_whole(
    run: Path, whole_run: list[Event], tell: Tell, warnings: list[str], tmp_path: Path
) -> None:
    tell(run, ["mlflow"], whole_run)
    assert warnings == []
    client, found = shown(run)
    assert found.info.status == "FINISHED"
    assert found.data.params["lr"] == "0.1"
    accuracies = steps(client, found, "global/accuracy")
    assert accuracies == [(0, 0.1), (1, 0.25), (2, 0.5), (3, 0.75)]
    assert steps(client, found, "metadata/training_time/median") == [(1, 1.5), (2, 3.0), (3, 4.5)]
    newly = steps(client, found, "clients/newly_converged")
    assert newly == [(0, 0.0), (1, 0.0), (2, 1.0), (3, 0.0)]
    assert [step for step, _ in steps(client, found, "global/loss")] == [0, 1, 3]  # one is NaN
    names = {each.path for each in client.list_artifacts(found.info.run_id)}
    assert {"clients.csv", "convergence.csv", "happenings.csv"} <= names
    folder = tmp_path / "downloaded"
    folder.mkdir()
    file = Path(client.download_artifacts(found.info.run_id, "happenings.csv", str(folder)))
    assert "Plateau: wait (0 of 2)" in file.read_text()


def test_a_resumed_run_goes_on_in_the_same_one_of_mlflow(
    run: Path,
    interrupted_run: tuple[list[Event], list[Event]],
    tell: Tell,
    warnings: list[str],
) -> None:
    before, after = interrupted_run
    tell(run, ["mlflow"], before)
    tell(run, ["mlflow"], after)
    assert warnings == []
    client, found = shown(run)
    assert [step for step, _ in steps(client, found, "global/accuracy")] == [0, 1, 2, 3]
