"""The fields of metadata are the same wherever a run is shown: report, trackers, pandas."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from fedwaggle.runs.events import ClientUpdated, RoundFinished, RoundStarted, RunStarted
from fedwaggle.runs.metadata_fields import chartable_fields, fields
from fedwaggle.runs.record import record_of
from fedwaggle.runs.report.story import tell
from fedwaggle.trackers.round_metrics import Rounds

NESTED = {
    "gpu": {"heat": 71, "watts": 250, "name": "x"},
    "losses": {"epoch_2": 0.5, "epoch_1": 0.9},
    "converged": True,
}


def events(metadata: dict[str, Any]) -> list[Any]:
    return [
        RunStarted(name="", strategy="", engine="", num_rounds=1, nodes=1, config={}, seed=0),
        RoundStarted(round=1, learning_rate=0.1, sampled=1, available=1, clients=["a"]),
        ClientUpdated(
            round=1,
            client="a",
            node_id="1",
            num_examples=1,
            metrics={},
            metadata=metadata,
            seconds=1.0,
            bytes=1,
        ),
        RoundFinished(round=1, seconds=1.0),
    ]


def test_report_trackers_and_pandas_show_the_same_fields(tmp_path: Path) -> None:
    """Two numbers of an object, a history whose keys are not in their order, and a boolean."""
    assert list(chartable_fields(NESTED)) == [
        ("gpu.heat", 71.0),
        ("gpu.watts", 250.0),
        ("losses", [0.9, 0.5]),
        ("converged", True),
    ]
    table = tell(events(NESTED)).fields
    assert table.numbers == {"gpu.heat": {0: 71.0}, "gpu.watts": {0: 250.0}}
    assert table.histories == {"losses": {0: [0.9, 0.5]}}
    assert table.booleans == {"converged": {0: True}}
    rounds = Rounds()
    shown = [rounds.see(event) for event in events(NESTED)][-1]
    assert shown is not None
    assert shown.scalars["client/a/gpu/heat"] == 71.0
    assert shown.scalars["client/a/gpu/watts"] == 250.0
    assert shown.scalars["client/a/losses"] == 0.5
    assert shown.scalars["metadata/converged"] == 1.0
    assert "metadata/gpu" not in shown.samples
    row = record_of(tmp_path, events(NESTED)).to_pandas().iloc[0]
    assert (row["metadata.gpu.heat"], row["metadata.gpu.watts"]) == (71, 250)
    assert row["metadata.gpu.name"] == "x"
    assert row["metadata.losses"] == {"epoch_2": 0.5, "epoch_1": 0.9}


def test_numbers_that_json_has_as_texts_are_numbers() -> None:
    found = dict(fields({"loss": "NaN", "os": "Linux", "best": "-Infinity"}))
    assert math.isnan(found["loss"])
    assert (found["os"], found["best"]) == ("Linux", -math.inf)
