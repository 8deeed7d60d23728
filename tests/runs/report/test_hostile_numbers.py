"""No number that a client sends takes the record of a run from everybody else.

Numbers that no sum, no axis and no clock can hold pass through every reader of a run: as one
client's beside those of its fellows, and as everybody's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import plotly.graph_objects as go
import pytest
from rich.console import Console

from fedwaggle.runs import load
from fedwaggle.runs.events import CheckpointSaved, ClientUpdated, Event, RoundFinished, RunFinished
from fedwaggle.runs.listing import list_runs
from fedwaggle.runs.listing.table import render_runs
from fedwaggle.runs.report import write_report
from fedwaggle.runs.report.comparing import write_comparison
from fedwaggle.runs.report.server import ReportServer
from fedwaggle.runs.terminal.screen import frame
from runs.report_data import Federation, run_events, write_run

HOSTILE: list[Any] = [
    1.7e308,
    -1.7e308,
    1e308,
    1e101,
    1e-320,
    5e-324,
    -0.0,
    -7.5,
    10**400,
    -(10**400),
    10**4000,
    "NaN",
    "Infinity",
    "-Infinity",
]
FEDERATION = Federation(rounds=4, clients=5, fraction=1.0, trouble=0.0)

Chosen = Callable[[ClientUpdated], bool]


def hostile_run(folder: Path, value: Any, chosen: Chosen, seed: int = 0) -> Path:
    """Write a run in which the chosen updates, and all averages, hold this value."""
    kind = Federation(**{**vars(FEDERATION), "seed": seed})
    return write_run(folder, [_said(event, value, chosen) for event in run_events(kind)])


def _said(event: Event, value: Any, chosen: Chosen) -> Event:
    number = float(value) if isinstance(value, str) else value
    several = {"epoch_1": value, "epoch_2": 0.5, "epoch_3": value}
    metrics = {"loss": number, "odd": number, "accuracy": number, "list": [number, 1.0]}
    match event:
        case ClientUpdated() if chosen(event):
            said = {"training_time": value, "training_losses": several, "odd": value, "l": [value]}
            more = {"nested": {"deep": value}, "converged": True, "mixed": [value, "x", None]}
            changed: dict[str, Any] = {"metadata": said | more, "metrics": metrics}
            if not isinstance(value, int):  # admission has a limit; a record may be of other hands
                changed["num_examples"] = number
        case RoundFinished():
            names = ("metrics", "train_metrics", "evaluate_metrics")
            changed = dict.fromkeys(names, metrics)
        case RunFinished():
            changed = {"metrics": metrics, "best": None}
        case CheckpointSaved():
            changed = {"value": float("inf") if isinstance(number, int) else number}
        case _:
            changed = {}
    return event.model_copy(update=changed)


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: str(value)[:9])
@pytest.mark.parametrize("everybody", [False, True])
def test_every_reader_of_a_run_lives_with_any_number(
    tmp_path: Path, value: Any, everybody: bool
) -> None:
    def chosen(update: ClientUpdated) -> bool:
        return everybody or update.client == "3"

    runs = [hostile_run(tmp_path / f"run-{i}", value, chosen, seed=i) for i in range(2)]
    read_in_every_way(runs, tmp_path)


def test_every_reader_of_a_run_lives_with_all_of_them_at_once(tmp_path: Path) -> None:
    """Each update has another number, so that they meet in every mean and median."""
    runs = []
    for seed in range(2):
        kind = Federation(**{**vars(FEDERATION), "seed": seed, "clients": len(HOSTILE)})
        events = [
            _said(event, HOSTILE[(i + seed) % len(HOSTILE)], lambda update: True)
            for i, event in enumerate(run_events(kind))
        ]
        runs.append(write_run(tmp_path / f"run-{seed}", events))
    read_in_every_way(runs, tmp_path)


def read_in_every_way(runs: list[Path], folder: Path) -> None:
    check_page(write_report(runs[0]))
    check_page(write_comparison(runs, folder / "comparison.html"))
    with ReportServer(runs[0]) as server, urlopen(server.url) as answer:
        assert answer.status == 200
    record = load(runs[0])
    assert len(record.to_pandas()) == sum(len(each.updates) for each in record.rounds)
    assert len(record.rounds_to_pandas()) == 5
    console = Console(width=100, record=True, quiet=True)
    console.print(frame(record, 100), render_runs(list_runs(folder)))


def check_page(path: Path) -> None:
    """Its figures are JSON without NaN, which Plotly knows, and no number fills its lines."""
    page = re.sub(r"<script>.*?</script>", "", path.read_text(), flags=re.DOTALL)
    data = page[page.index('id="page-data">') + 15 :].partition("</script>")[0]
    assert "∞" not in data
    for figure in json.loads(re.sub(r'"@[a-z-]+"', '"#123456"', data))["figures"]:
        go.Figure(figure["data"], figure["layout"])
    assert not re.search("[0-9]{80}", page)
