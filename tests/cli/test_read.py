"""The commands that read: runs, report, watch, compare, track."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fedwaggle.config import RunConfig
from fedwaggle.runs import Run
from fedwaggle.runs.events import RoundFinished, RunFinished, RunStarted
from fedwaggle.runs.listing.names import name_of


def record_run(outputs: Path, name: str, accuracy: float) -> Path:
    """Write the record of a run of one round."""
    with Run.create(outputs, name=name) as run:
        run.record(
            RunStarted(
                name=name,
                strategy="FedAvg",
                engine="local",
                num_rounds=1,
                nodes=2,
                config={},
                seed=1,
            )
        )
        run.record(RoundFinished(round=0, metrics={"accuracy": 0.1}, seconds=0.1))
        run.record(RoundFinished(round=1, metrics={"accuracy": accuracy}, seconds=0.5))
        run.record(
            RunFinished(rounds=1, metrics={"accuracy": accuracy}, sha256="0" * 64, seconds=0.6)
        )
    return run.path


@pytest.fixture
def two_runs(tmp_path: Path) -> list[Path]:
    """Return two finished runs in ./outputs."""
    outputs = tmp_path / "outputs"
    return [record_run(outputs, "first", 0.5), record_run(outputs, "second", 0.75)]


def test_runs_lists_what_is_there(waggle, two_runs: list[Path]) -> None:
    done = waggle("runs")
    assert done.returncode == 0, done.stderr
    for run in two_runs:
        assert run.name in done.stdout
    assert done.stdout == waggle("runs", "outputs").stdout


def test_a_pipe_gets_a_line_for_each_run_however_narrow_the_terminal(
    waggle, two_runs: list[Path]
) -> None:
    lines = waggle("runs", COLUMNS="20").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["run", *(name_of(run.name) for run in two_runs)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "8000"], "error: --port: expected --serve beside it"),
        (["--serve", "--output", "page.html"], "error: --output: expected no --serve beside it"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    waggle, two_runs: list[Path], options: list[str], message: str
) -> None:
    done = waggle("report", *options)
    assert (done.returncode, done.stderr.startswith(message)) == (2, True)


@pytest.mark.parametrize("command", ["report", "watch", "compare"])
def test_help_says_how_a_run_is_named(waggle, command: str) -> None:
    assert "latest, its name, or its folder" in waggle(command, "--help").stdout


def test_no_runs_is_no_error(waggle, tmp_path: Path) -> None:
    done = waggle("runs")
    assert (done.returncode, done.stdout.startswith("No runs in ")) == (0, True)


def test_report_writes_the_latest_run_s_page(waggle, two_runs: list[Path]) -> None:
    done = waggle("report")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{two_runs[1] / 'report.html'}\n"
    assert "second" in (two_runs[1] / "report.html").read_text()


def test_report_writes_where_it_is_told(waggle, two_runs: list[Path], tmp_path: Path) -> None:
    done = waggle("report", two_runs[0].name, "--output", "page.html")
    assert done.returncode == 0, done.stderr
    assert "first" in (tmp_path / "page.html").read_text()


def test_watch_shows_a_finished_run_once(waggle, two_runs: list[Path]) -> None:
    done = waggle("watch", str(two_runs[0]))
    assert done.returncode == 0, done.stderr
    assert "first" in done.stdout


def test_compare_writes_one_page(waggle, two_runs: list[Path], tmp_path: Path) -> None:
    done = waggle("compare", *(run.name for run in two_runs))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "comparison.html").read_text()
    assert "first" in page
    assert "second" in page


@pytest.mark.parametrize(
    "command", [["report"], ["watch"], ["compare", "a", "b"], ["report", "--serve"]]
)
def test_a_run_that_is_not_there_is_status_2(waggle, command: list[str]) -> None:
    done = waggle(*command)
    assert done.returncode == 2
    assert done.stderr.startswith("error: expected latest, the name of a run, or its folder")
    assert "Traceback" not in done.stderr


def test_track_shows_an_old_run_whole(waggle, two_runs: list[Path]) -> None:
    done = waggle("track", two_runs[0].name, "--tracker", "tensorboard")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{two_runs[0].name} is shown in tensorboard\n"
    assert list((two_runs[0] / "tensorboard").glob("events.out.tfevents.*"))
    assert not (two_runs[1] / "tensorboard").exists()


@pytest.mark.parametrize("options", [[], ["--tracker", "mlfow"]])
def test_track_needs_a_tracker_that_is_known(
    waggle, two_runs: list[Path], options: list[str]
) -> None:
    done = waggle("track", *options)
    assert done.returncode == 2
    assert "--tracker: expected one of csv, mlflow, tensorboard, wandb, got" in done.stderr


def test_track_fails_if_the_tracker_does(waggle, two_runs: list[Path]) -> None:
    (two_runs[1] / "tensorboard").write_text("a file where the folder should be")
    done = waggle("track", "--tracker", "tensorboard")
    assert done.returncode == 1
    assert "Tracker tensorboard is dropped: FileExistsError" in done.stderr


def test_config_lists_the_keys_with_default_values_and_meaning(waggle) -> None:
    lines = waggle("config").stdout.splitlines()
    assert len(lines) >= len(RunConfig.model_fields)
    (line,) = [line for line in lines if line.split()[0] == "alpha"]
    assert "0.5" in line
    assert "number above 0" in line
    assert "Evenness of the two dirichlet; small is uneven." in line
    part = waggle("config", "best").stdout.splitlines()
    assert [line.split()[0] for line in part] == ["key", "best-metric", "best-mode"]
    wrong = waggle("config", "learning-rate")
    assert wrong.returncode == 2
    assert "expected one of the run config, got 'learning-rate'" in wrong.stderr


def test_h_is_help_and_options_stand_in_panels(waggle) -> None:
    said = waggle("run", "-h").stdout
    for panel in ("Run config", "Simulation", "Resume", "Output"):
        assert f" {panel} " in said
    assert "Folder of a Flower app" in said


def test_a_run_is_exported_as_tables_of_any_kind(waggle, two_runs: list[Path]) -> None:
    done = waggle("export", "latest", "--csv", "--parquet", "--latex")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    rounds = pd.read_csv(folder / "rounds.csv")
    assert rounds["round"].tolist() == pd.read_parquet(folder / "rounds.parquet")["round"].tolist()
    assert (folder / "updates.csv").exists()
    assert "\\toprule" in (folder / "rounds.tex").read_text()
    refused = waggle("export", "latest")
    assert refused.returncode == 2
    assert "expected --csv, --parquet or --latex" in refused.stderr
