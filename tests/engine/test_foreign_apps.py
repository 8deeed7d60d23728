"""Apps that know nothing of this library mean the same on the local engine as on Flower's.

All nodes take part in every round, since Flower's own sampling cannot be repeated. What is left
is the order in which replies are summed: the outcomes agree to the rounding of float64.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from fedwaggle.engine import run
from fedwaggle.engine.flower import run as flower
from fedwaggle.engine.options import EngineOptions

APPS = Path(__file__).parent / "apps"
NODES = 4


def run_locally(app: str, folder: Path) -> dict[str, Any]:
    result = folder / "local.json"
    config = {"result-file": str(result)}
    run(APPS / app, nodes=NODES, workers=2, config=config, quiet=True)
    return json.loads(result.read_text())


def run_on_flower(app: str, folder: Path) -> dict[str, Any]:
    result = folder / "flower.json"
    flower.run(
        APPS / app,
        outputs=folder,
        config={"result-file": str(result)},
        options=EngineOptions(nodes=NODES, quiet=True),
    )
    return json.loads(result.read_text())


def test_the_apps_do_not_know_this_library() -> None:
    files = [file for file in APPS.rglob("*") if file.suffix in {".py", ".toml"}]
    assert len(files) == 16
    assert [file.name for file in files if "waggle" in file.read_text()] == []


def test_fedavg_finds_the_line_that_every_client_lies_on(tmp_path: Path) -> None:
    outcome = run_locally("linear", tmp_path)
    assert outcome["arrays"]["weights"] == pytest.approx([1, -2, 3], abs=0.02)
    assert outcome["arrays"]["bias"] == pytest.approx([0.5], abs=0.02)
    assert outcome["evaluate"]["1"]["mse"] > 1 > 0.001 > outcome["evaluate"]["30"]["mse"]


def test_fedadam_learns_the_digits_with_scikit_learn(tmp_path: Path) -> None:
    outcome = run_locally("digits", tmp_path)
    assert outcome["evaluate"]["12"]["accuracy"] > 0.9


def test_mods_queries_and_states_work_together(tmp_path: Path) -> None:
    """Node k steps towards k from the global value, with momentum 0.5 and rate 1/3.

    The first steps are 0, 1, 2, 3, which make the value 0.5. The second ones are -0.5, 1, 2.5, 4,
    of which the mod cuts 4 / 3 down to 1: the value is 1.0. The third ones are then -1 - 0.25,
    0 + 0.5, 1 + 1.25 and 2 + 2.
    """
    outcome = run_locally("personal", tmp_path)
    memory = outcome["memory"]
    assert [answer["momentum"] for answer in memory] == pytest.approx([-1.25, 0.5, 2.25, 4.0])
    # A query, three rounds of training, a query: each is a call that the state counts.
    assert [metrics["calls"] for metrics in outcome["train"].values()] == [2, 3, 4]
    assert [answer["calls"] for answer in memory] == [5] * NODES


def test_contexts_errors_and_seeds_are_flowers(tmp_path: Path) -> None:
    """Six calls, of which the third changes the run config and the fifth raises: both count not."""
    outcome = run_locally("contexts", tmp_path)
    answers, app = outcome["answers"], outcome["app"]
    assert [answer.get("calls") for answer in answers] == [1, 2, None, 3, None, 4]
    assert [answer.get("calls-in-config") for answer in answers] == [1, 2, None, 3, None, 4]
    assert [answer.get("error") for answer in answers] == [None, None, 0, None, 2, None]
    assert answers[-1] == {**answers[1], "calls": 4, "calls-in-config": 4}
    assert answers[0]["drawn"] == random.Random(5).random()
    assert app == [True, True]


@pytest.mark.parametrize(
    "app",
    [
        "personal",
        pytest.param("linear", marks=pytest.mark.slow),
        pytest.param("digits", marks=pytest.mark.slow),
        pytest.param("contexts", marks=pytest.mark.slow),
    ],
)
def test_the_outcome_is_that_of_flowers_simulation(app: str, tmp_path: Path) -> None:
    ours, flowers = run_locally(app, tmp_path), run_on_flower(app, tmp_path)
    assert flatten(ours) == pytest.approx(flatten(flowers), rel=1e-9, abs=1e-12)


def flatten(record: Any, path: str = "") -> dict[str, float]:
    """Return every number in a record under its path."""
    if isinstance(record, (int, float)):
        return {path: record}
    items = record.items() if isinstance(record, dict) else enumerate(record)
    return {
        key: number
        for name, value in items
        for key, number in flatten(value, f"{path}/{name}").items()
    }
