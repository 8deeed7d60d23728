"""The runs below a folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from fedwaggle.errors import ConfigError, RunError
from fedwaggle.runs.events import (
    CheckpointSaved,
    ClientUpdated,
    Event,
    RoundFinished,
    RunFailed,
    RunFinished,
    RunStarted,
    to_line,
)
from fedwaggle.runs.listing import find_run, list_runs
from fedwaggle.runs.listing.names import name_of
from fedwaggle.runs.listing.table import duration, filtered, render_runs, sorted_runs

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def a_run(root: Path, name: str, *more: Event) -> Path:
    started = RunStarted(
        time=WHEN, name="x", strategy="S", engine="local", num_rounds=2, nodes=1, config={}, seed=7
    )
    folder = root / name
    folder.mkdir()
    lines = [to_line(each) + "\n" for each in (started, *more)]
    (folder / "events.jsonl").write_text("".join(lines))
    return folder


def finished(server_round: int) -> RoundFinished:
    return RoundFinished(round=server_round, seconds=30.0)


BEST = CheckpointSaved(round=1, metric="accuracy", value=0.75, file="", sha256="", bytes=1)
END = RunFinished(rounds=1, sha256="", seconds=1.0)


def test_runs_are_listed_with_their_facts_the_oldest_first(tmp_path: Path) -> None:
    a_run(tmp_path, "20260103T000000Z-b")
    a_run(tmp_path, "20260102T030405Z-a", finished(0), finished(1), BEST, END)
    (tmp_path / "notes").mkdir()
    a, b = list_runs(tmp_path)
    assert (a.path.name, a.status, a.started, a.seed) == ("20260102T030405Z-a", "finished", WHEN, 7)
    assert (a.rounds, a.num_rounds, a.seconds) == (1, 2, 60.0)
    assert a.best is not None
    assert (a.best.round, a.best.value) == (1, 0.75)
    assert (b.status, b.rounds, b.best) == ("interrupted", 0, None)


def test_client_updates_are_passed_over_and_nothing_else(tmp_path: Path) -> None:
    """A config may hold any text, and half a line at the end may, too."""
    update = ClientUpdated(
        round=1, client="0", node_id="", num_examples=1, metrics={}, seconds=1.0, bytes=1
    )
    with (a_run(tmp_path, "a", finished(0), update, finished(1)) / "events.jsonl").open(
        "a"
    ) as file:
        file.write('{"v":1,"event":"run-fin')
    line = to_line(update)
    assert line.index('"event":"client-updated"') < 70
    (each,) = list_runs(tmp_path)
    assert (each.rounds, each.seconds, each.seed) == (1, 60.0, 7)


def test_a_folder_that_is_not_there_holds_no_runs(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "outputs") == []


def test_a_damaged_record_spoils_only_its_own_line(tmp_path: Path) -> None:
    a_run(tmp_path, "a")
    (a_run(tmp_path, "b") / "events.jsonl").write_text("not json\n")
    assert [each.status for each in list_runs(tmp_path)] == ["interrupted", "unreadable"]


def test_a_run_is_found_as_the_latest_by_name_and_by_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = a_run(tmp_path, "20260102T030405Z-a")
    b = a_run(tmp_path, "20260103T000000Z-b")
    assert find_run("latest", tmp_path) == b
    assert find_run("20260102T030405Z-a", tmp_path) == a
    assert find_run(str(a), tmp_path / "elsewhere") == a
    monkeypatch.chdir(a)
    assert find_run(".", tmp_path / "elsewhere").resolve() == a


def test_a_run_that_is_not_there_is_an_error_that_names_those_near(tmp_path: Path) -> None:
    a_run(tmp_path, "20260102T030405Z-iid")
    with pytest.raises(
        RunError, match="got '20260102T030405Z-iib'; there are 20260102T030405Z-iid"
    ):
        find_run("20260102T030405Z-iib", tmp_path)
    with pytest.raises(RunError, match=f"there are no runs in {tmp_path / 'none'}"):
        find_run("latest", tmp_path / "none")
    with pytest.raises(RunError, match="got ''"):
        find_run("", tmp_path)


def test_the_table_shows_each_run_and_reads_no_markup(tmp_path: Path) -> None:
    a_run(tmp_path, "[red]a", finished(0), finished(1), BEST)
    console = Console(width=100, record=True, file=None, force_terminal=False)
    with console.capture() as captured:
        console.print(render_runs(list_runs(tmp_path)))
    said = captured.get()
    for word in ("[red]a", "interrupted", "1/2", "accuracy 75.00 % (round 1)", "1:00"):
        assert word in said


def test_durations_are_as_short_as_they_can_be() -> None:
    assert [duration(each) for each in (0, 59.6, 600, 90_000)] == [
        *("0:00", "1:00", "10:00", "1 day, 1:00:00"),
    ]


def test_a_run_without_a_name_has_two_words_by_which_it_is_found(tmp_path: Path) -> None:
    named = a_run(tmp_path, "20260102T030405Z-iid")
    plain = a_run(tmp_path, "20260103T000000Z")
    second = a_run(tmp_path, "20260103T000000Z-2")
    words = name_of(plain.name)
    assert words.replace("-", "").isalpha()
    assert words != name_of(second.name)
    assert find_run(words, tmp_path) == plain
    assert find_run("iid", tmp_path) == named
    a_run(tmp_path, "20260104T000000Z-iid")
    with pytest.raises(RunError, match="which 20260102T030405Z-iid, 20260104T000000Z-iid have"):
        find_run("iid", tmp_path)


def started(**changes: object) -> RunStarted:
    values = {
        **{"name": "x", "strategy": "S", "engine": "local", "num_rounds": 2, "nodes": 1, "seed": 7},
        **changes,
    }
    return RunStarted(time=WHEN, **values)


def write(root: Path, name: str, *events: Event) -> None:
    (root / name).mkdir()
    (root / name / "events.jsonl").write_text("".join(to_line(each) + "\n" for each in events))


def test_the_table_says_what_tells_runs_apart_and_why_one_failed(tmp_path: Path) -> None:
    write(tmp_path, "a", started(config={"lr": 0.1, "seed": 0, "outputs": "x"}), END)
    failed = RunFailed(error="NodesError: no client", round=1, seconds=1.0)
    write(tmp_path, "b", started(config={"lr": 0.2, "seed": 0, "outputs": "y"}), failed)
    console = Console(width=120, force_terminal=False)
    with console.capture() as captured:
        console.print(render_runs(list_runs(tmp_path)))
    heading, first, second = captured.get().splitlines()
    assert "differs by" in heading
    assert "lr=0.1" in first
    assert "seed" not in first
    assert "NodesError: no client" in second
    assert "lr=0.2" in second


def test_runs_are_sorted_and_filtered(tmp_path: Path) -> None:
    """Of three, two have finished; the one with the lower accuracy comes first by best."""
    high = CheckpointSaved(round=1, metric="accuracy", value=0.9, file="", sha256="", bytes=1)
    write(tmp_path, "a", started(config={"lr": 0.1}), high, END)
    write(tmp_path, "b", started(config={"lr": 0.2}), BEST, END)
    write(tmp_path, "c", started(config={"lr": 0.1}))
    listings = list_runs(tmp_path)
    assert [each.name for each in sorted_runs(listings, "best")] == ["c", "b", "a"]
    assert [each.name for each in filtered(listings, ["status=finished", "lr=0.1"])] == ["a"]
    with pytest.raises(ConfigError, match="--sort: expected one of started, name"):
        sorted_runs(listings, "colour")
    with pytest.raises(ConfigError, match="--filter: expected KEY=VALUE, got 'lr'"):
        filtered(listings, ["lr"])
