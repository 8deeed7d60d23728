"""The tables that a run is written into, read back by pandas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from fedwaggle.runs.events import Event

Tell = Callable[[Path, Sequence[str], Sequence[Event]], None]


def read(run: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(run / "csv" / name)


def test_a_run_is_three_tables(
    run: Path, whole_run: list[Event], tell: Tell, warnings: list[str]
) -> None:
    tell(run, ["csv"], whole_run)
    assert warnings == []
    rounds = read(run, "rounds.csv").pivot_table(index="round", columns="name", values="value")
    assert rounds["global/accuracy"].tolist() == [0.1, 0.25, 0.5, 0.75]
    assert rounds["metadata/converged"].dropna().tolist() == [0.0, 1.0, 1.0]
    clients = read(run, "clients.csv").query("client == '0' and field == 'training_time'")
    assert clients["value"].astype(float).tolist() == [1.5, 3.0, 4.5]
    happenings = read(run, "happenings.csv")
    assert happenings["what"].tolist().count("quarantine") == 3
    assert happenings.query("what == 'decision'")["text"].tolist() == ["Plateau: wait (0 of 2)"] * 3


def test_a_resumed_run_is_written_anew_and_whole(
    run: Path, interrupted_run: tuple[list[Event], list[Event]], tell: Tell
) -> None:
    before, after = interrupted_run
    tell(run, ["csv"], before)
    tell(run, ["csv"], after)
    accuracies = read(run, "rounds.csv").query("name == 'global/accuracy'")
    assert accuracies["round"].tolist() == [0, 1, 2, 3]


def test_no_client_writes_a_formula_into_a_spreadsheet(
    run: Path, whole_run: list[Event], tell: Tell
) -> None:
    update = next(event for event in whole_run if event.event == "client-updated")
    hostile = update.model_copy(update={"client": '=HYPERLINK("http://x")'})
    events = [hostile if event is update else event for event in whole_run]
    tell(run, ["csv"], events)
    text = (run / "csv" / "clients.csv").read_text()
    assert "'=HYPERLINK" in text
    assert not any(cell.startswith("=") for line in text.splitlines() for cell in line.split(","))
