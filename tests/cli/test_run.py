"""``waggle run`` on the local engine: settings, outputs, resuming, errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fedwaggle.cli.run import parse_settings
from fedwaggle.errors import ConfigError
from fedwaggle.runs import Run
from running import plain_env


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("0.5", 1.0, 0.5),
        ("1", 1.0, 1),  # a whole number for a float: the app's reader takes it
        ("true", False, True),
        ("plain words", "", "plain words"),
        ("'quoted words'", "", "quoted words"),
        ("2024", "", "2024"),  # where the app has text, text is meant
        ("true", "", "true"),
        ("a=b", "", "a=b"),
        ("", "x", ""),
        ("1\nother = 2", "", "1\nother = 2"),
        ("fast", 1.0, "fast"),  # refused later, by its type
    ],
)
def test_a_setting_is_toml_or_plain_text(text: str, default: object, value: object) -> None:
    parsed = parse_settings([f"key={text}"], {"key": default})["key"]
    assert (type(parsed), parsed) == (type(value), value)


def test_the_last_of_two_settings_counts() -> None:
    assert parse_settings(["a=1", "a=2"], {"a": 0}) == {"a": 2}


def test_a_setting_without_equals_sign_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--set lr: expected KEY=VALUE, got no =.*--set lr=0\.1"):
        parse_settings(["lr"], {"lr": 0.1})


def test_a_run_uses_the_settings_and_names_its_outputs(waggle, tiny: str, tmp_path: Path) -> None:
    """Partition ids 0, 1 and 2 times step 2 have the mean 2."""
    done = waggle("run", tiny, "--nodes", "3", "--set", "step=2", "-q")
    assert done.returncode == 0, done.stderr
    assert "mean [2.0, 2.0, 2.0]\nstep 2.0 resume '' fork False\n" in done.stdout
    assert f"outputs {tmp_path / 'outputs'}\n" in done.stdout


def test_settings_may_be_written_as_for_flwr_run(waggle, tiny: str) -> None:
    config = "step=3.0 note='a b' mode=\"train\""
    done = waggle("run", tiny, "--nodes", "3", "-c", config, "--set", "resume=none")
    assert done.returncode == 0, done.stderr
    assert "mean [3.0, 3.0, 3.0]\nstep 3.0 resume 'none' fork False\n" in done.stdout


def test_outputs_that_the_environment_names_stay(waggle, tiny: str, tmp_path: Path) -> None:
    done = waggle("run", tiny, "--nodes", "3", WAGGLE_OUTPUTS=str(tmp_path / "elsewhere"))
    assert f"outputs {tmp_path / 'elsewhere'}\n" in done.stdout


def test_every_wrong_setting_is_named_at_once(waggle, tiny: str) -> None:
    done = waggle("run", tiny, "--set", "stpe=1", "--set", "step=fast")
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith("error: stpe: ")
    assert "did you mean step?" in first
    assert second.startswith("error: step: expected float, got str 'fast'")


def test_an_app_s_own_error_is_shown_from_its_first_line(waggle, tiny: str) -> None:
    done = waggle("run", tiny, "--nodes", "3", "--set", "mode=raise")
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: the bees are out of honey\n")
    trace = done.stderr[done.stderr.rindex("Traceback (most") :]
    assert trace.count('File "') == 1
    assert "tiny_app/server_app.py" in trace


def test_resume_finds_the_latest_run(waggle, tiny: str, tmp_path: Path) -> None:
    with Run.create(tmp_path / "outputs", name="before") as run:
        path = run.path
    done = waggle("run", tiny, "--nodes", "3", "--resume", "latest")
    assert f"resume {str(path)!r} fork False" in done.stdout, done.stderr
    done = waggle("run", tiny, "--nodes", "3", "--resume", path.name, "--fork")
    assert f"resume {str(path)!r} fork True" in done.stdout, done.stderr


def test_resume_without_a_run_is_refused(waggle, tiny: str) -> None:
    done = waggle("run", tiny, "--resume", "latest")
    assert done.returncode == 2
    assert "there are no runs in" in done.stderr


def test_fork_alone_is_refused(waggle, tiny: str) -> None:
    done = waggle("run", tiny, "--fork")
    assert (done.returncode, done.stderr.count("expected --resume RUN beside it")) == (2, 1)


def test_resume_needs_an_app_that_can(waggle, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.flwr.app.components]\nserverapp = "a:app"\nclientapp = "b:app"\n'
    )
    done = waggle("run", "--resume", "latest", "--fork")
    assert done.returncode == 2
    assert "--resume: expected the app to have the key resume" in done.stderr
    assert "--fork: expected the app to have the key fork" in done.stderr


def test_what_stock_flower_cannot_do_is_refused(waggle, tiny: str) -> None:
    done = waggle("run", tiny, "--engine", "flower", "--client-timeout", "5", "--isolate")
    assert done.returncode == 2
    assert "--client-timeout: expected --engine local" in done.stderr
    assert "--isolate: expected --engine local" in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_ends_every_process(
    tiny: str, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """Clients hang for an hour; a signal to the group, as a terminal sends it, ends them all."""
    command = [Path(sys.executable).with_name("waggle"), "run", tiny, "--nodes", "3"]
    log = tmp_path / "log"
    with log.open("wb") as file:
        run = subprocess.Popen(
            [*command, "--set", "mode=hang"],
            cwd=tmp_path,
            env=plain_env(),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    while "configure_train: Sampled 3" not in log.read_text():
        assert run.poll() is None, log.read_text()
        time.sleep(0.05)
    time.sleep(0.5)  # the clients are at it
    family = psutil.Process(run.pid).children(recursive=True)
    assert family
    os.killpg(run.pid, number)
    assert run.wait(20) == status, log.read_text()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert [process.name() for process in alive] == []
    assert "Traceback" not in log.read_text()
