"""The latest run is the one that began last, whatever the clock says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fedwaggle.runs import Request, writer
from fedwaggle.runs.listing import find_run, list_runs
from fedwaggle.runs.request import read_request
from fedwaggle.runs.writer import make_folder


def begin(root: Path, name: str = "") -> Path:
    path, _ = make_folder(root, name, Request())
    (path / "events.jsonl").touch()
    return path


def test_a_clock_that_jumps_back_does_not_change_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three runs, each an hour before the one that began before it."""

    class Clock(datetime):
        hours = 0

        @classmethod
        def now(cls, tz=None):
            cls.hours += 1
            return super().now(tz) - timedelta(hours=cls.hours)

    monkeypatch.setattr(writer, "datetime", Clock)
    begun = [begin(tmp_path) for _ in range(3)]
    assert begun == sorted(begun, reverse=True)
    assert find_run("latest", tmp_path) == begun[-1]
    assert [each.path for each in list_runs(tmp_path)] == begun


def test_twelve_runs_of_one_second_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their names, the tenth would stand before the second."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, 2, tzinfo=tz)

    monkeypatch.setattr(writer, "datetime", Clock)
    begun = [begin(tmp_path, "iid") for _ in range(12)]
    assert begun[9].name == "20260102T000000Z-iid-10"
    assert [each.path for each in list_runs(tmp_path)] == begun
    assert find_run("latest", tmp_path) == begun[-1]


def test_runs_that_begin_at_the_same_time_have_different_numbers(tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    with ThreadPoolExecutor(8) as threads:
        begun = list(threads.map(begin, [root] * 8))
    assert sorted(read_request(path).number for path in begun) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_runs_without_a_number_are_older_than_those_that_have_one(tmp_path: Path) -> None:
    """Their names are all that there is to go by; what run.json holds of them may be anything."""
    for name, asked in (("b", "{}"), ("z", "[1]"), ("a", '{"number": "7"}'), ("y", "\0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "events.jsonl").touch()
        (tmp_path / name / "run.json").write_text(asked)
    numbered = begin(tmp_path)
    assert [each.path.name for each in list_runs(tmp_path)] == ["a", "b", "y", "z", numbered.name]
