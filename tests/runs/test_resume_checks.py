"""What a run is compared with when it is resumed: its data, its versions, its code."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fedwaggle.errors import RunError
from fedwaggle.runs import Request, Run, open_folder
from fedwaggle.runs.checkpoints import Snapshot, write_snapshot
from fedwaggle.runs.events import RunFinished
from fedwaggle.runs.listing import find_run
from fedwaggle.runs.request import read_request
from fedwaggle.site.code import code_hash, source_hashes

END = RunFinished(rounds=0, sha256="", seconds=1.0)


def test_a_run_that_cannot_be_repeated_keeps_its_place_among_the_others(tmp_path: Path) -> None:
    """Its ``run.json`` is written again; ``latest`` goes by the number in it."""
    with Run.create(tmp_path), Run.create(tmp_path) as second:
        second.explain_not_repeatable({"replies": "one came too late"})
        (second.path / "events.jsonl").touch()
        assert (second.request.number, read_request(second.path).number) == (2, 2)
        assert find_run("latest", tmp_path) == second.path


def a_run(root: Path, request: Request) -> Path:
    with Run.create(root, request=request) as run:
        run.record(END)
        write_snapshot(run.path, Snapshot(0, {}, {"model": []}))
    return run.path


def test_other_data_is_refused_and_allowed_to_a_fork(tmp_path: Path) -> None:
    path = a_run(tmp_path, Request(dataset="aaaa", config={"lr": 0.1}))
    other = Request(dataset="bbbb", config={"lr": 0.2})
    with pytest.raises(RunError) as caught:
        open_folder(tmp_path, request=other, resume="latest")
    assert "the data (fingerprint): was 'aaaa', is 'bbbb'" in str(caught.value)
    assert "lr: was 0.1, is 0.2" in str(caught.value)
    assert "--fork" in str(caught.value)
    fork = open_folder(tmp_path, request=other, resume=path.name, fork=True)
    fork.close()


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


def test_other_versions_are_a_warning_that_names_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a_run(tmp_path, Request(versions={"torch": "2.12", "flwr": "1.42", "old": "1"}))
    now = Request(versions={"torch": "2.13", "flwr": "1.42", "new": "2"})
    with caplog.at_level(logging.WARNING):
        open_folder(tmp_path, request=now, resume="latest").close()
    (warning,) = warnings_in(caplog)
    assert "new none -> 2, old 1 -> none, torch 2.12 -> 2.13" in warning
    assert "flwr" not in warning


def test_another_machine_is_a_warning_that_names_what_differs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server's number of threads decides nothing, and is not named."""
    a_run(tmp_path, Request(machine={"cpu": "AVX2", "threads": "2"}))
    now = Request(machine={"cpu": "AVX512", "threads": "8", "MKL_CBWR": "AVX2"})
    with caplog.at_level(logging.WARNING):
        open_folder(tmp_path, request=now, resume="latest").close()
    (warning,) = warnings_in(caplog)
    assert "another machine" in warning
    assert "MKL_CBWR unset -> AVX2, cpu AVX2 -> AVX512; the last digits" in warning
    assert "threads" not in warning


def test_changed_code_is_a_warning_that_names_the_files_of_sub_packages_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    package = tmp_path / "app"
    (package / "models" / "deep").mkdir(parents=True)
    for name in ("task.py", "models/net.py", "models/deep/layer.py", "models/notes.txt"):
        (package / name).write_text("x = 1")

    def request() -> Request:
        return Request(code=code_hash(package), sources=source_hashes(package))

    a_run(tmp_path / "runs", request())
    (package / "models" / "notes.txt").write_text("no code")
    with caplog.at_level(logging.WARNING):
        open_folder(tmp_path / "runs", request=request(), resume="latest").close()
        assert warnings_in(caplog) == []
        (package / "models" / "deep" / "layer.py").write_text("x = 2")
        (package / "models" / "loss.py").write_text("x = 1")
        (package / "models" / "net.py").unlink()
        open_folder(tmp_path / "runs", request=request(), resume="latest").close()
    (warning,) = warnings_in(caplog)
    assert "models/deep/layer.py, models/loss.py (new), models/net.py (removed);" in warning
