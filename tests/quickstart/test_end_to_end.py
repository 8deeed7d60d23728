"""The whole job on Flower's own simulation: two nodes, two rounds, everything read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fedwaggle.data import load_split
from fedwaggle.runs.checkpoints import model_sha256
from my_federated_project import task
from running import command, latest, of_kind, plain_env, story


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the run's folder and what was printed."""
    import subprocess

    outputs = tmp_path_factory.mktemp("outputs")
    settings = {"num-server-rounds": 2, "local-epochs": 1, "lr": 0.02, "fraction-train": 1.0}
    line = command(outputs, "--engine", "flower", settings=settings, nodes=2)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(line, capture_output=True, text=True, env=plain_env(), cwd=elsewhere)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert list(elsewhere.iterdir()) == []
    return latest(outputs), done.stdout + done.stderr


def test_the_record_tells_the_whole_story(finished: tuple[Path, str]) -> None:
    events = story(finished[0])
    assert events[0].event == "run-started"
    assert events[0].strategy == "CustomFedAdagrad"
    assert events[0].engine == "flower-simulation"
    assert events[0].config["lr"] == 0.02
    asked = json.loads((finished[0] / "run.json").read_text())
    assert (asked["engine"], asked["seed"]) == ("flower-simulation", 0)
    assert events[-1].event == "run-finished"
    assert [e.round for e in of_kind(events, "round-finished")] == [0, 1, 2]


def test_every_client_said_more_than_weights(finished: tuple[Path, str]) -> None:
    updates = of_kind(story(finished[0]), "client-updated")
    assert sorted((e.round, e.client) for e in updates) == [(1, "0"), (1, "1"), (2, "0"), (2, "1")]
    for update in updates:
        assert update.metadata["training_time"] > 0
        assert update.metadata["converged"] in (True, False)
        assert list(update.metadata["training_losses"]) == ["epoch_1"]
        assert update.num_examples == 3000


def test_the_best_model_is_the_one_that_the_record_names(finished: tuple[Path, str]) -> None:
    """best.pth, loaded as data into Net, has the accuracy that best.json says."""
    run_folder = finished[0]
    best = json.loads((run_folder / "best.json").read_text())
    state = torch.load(run_folder / "best.pth", weights_only=True)
    assert model_sha256({name: t.numpy() for name, t in state.items()}) == best["sha256"]
    model = task.Net()
    model.load_state_dict(state)
    _, accuracy = task.test(model, load_split("fashion-mnist-mini", "test"))
    assert accuracy == pytest.approx(best["value"])
    assert accuracy > 0.3  # guessing is 0.1


def test_what_is_printed_is_one_line_a_round_and_where_things_lie(
    finished: tuple[Path, str],
) -> None:
    run_folder, printed = finished
    lines = [line for line in printed.splitlines() if "round   " in line]
    assert len(lines) == 3
    assert "clients 2/2" in lines[2]
    assert str(run_folder / "best.pth") in printed
    assert (run_folder / "report.html").stat().st_size > 0
