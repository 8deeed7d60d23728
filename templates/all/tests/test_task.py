"""The task does what the other files expect of it."""

import tomllib
from dataclasses import is_dataclass
from pathlib import Path
from types import SimpleNamespace

from fedwaggle import load_examples, simulate
from my_federated_project import client_app, server_app, task

PROJECT = Path(__file__).parents[1]
CONFIG = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]


def test_both_splits_have_examples() -> None:
    for split in ("train", "test"):
        node = SimpleNamespace(run_config=CONFIG, node_config={})
        assert len(load_examples(task.load_data, split, node)) > 0


def test_a_run_of_two_rounds_reports_metrics_and_metadata(tmp_path: Path) -> None:
    assert is_dataclass(task.TrainProcessMetadata)
    result = simulate(
        server_app.app,
        client_app.app,
        num_supernodes=4,
        config={**CONFIG, "num-server-rounds": 2, "outputs": str(tmp_path)},
    )
    assert result.record.best.metric in result.metrics
    updates = result.updates_to_pandas()
    assert len(updates) == 4
    assert any(name.startswith("metadata.") for name in updates.columns)
