"""``waggle run`` on the local engine: settings, outputs, resuming, errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fedwaggle.cli.new import create_project
from fedwaggle.cli.run import parse_run_config, parse_settings
from fedwaggle.errors import ConfigError
from fedwaggle.runs import Request, Run
from fedwaggle.runs.events import RunStarted
from running import plain_env
from waiting import PATIENCE, wait_for_end


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


@pytest.mark.parametrize("line", ["lr = 0.5", "lr= 0.5", "nonsense", "a=1 b", "a='b'c", "a=[1, 2]"])
def test_what_flower_would_pass_over_in_a_run_config_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match=r"--run-config .*: expected KEY=VALUE .* \"lr=0\.5 "):
        parse_run_config(["b=2", line], {"a": 0, "b": 0, "lr": 1.0})


@pytest.mark.parametrize("line", ["", "  ", "note=a.toml", "note='x.toml' lr=0.1", "note=x=.toml"])
def test_a_run_config_that_is_all_pairs_is_read_whole(line: str) -> None:
    assert len(parse_run_config([line], {"note": ""})) == line.count("=") - ("x=" in line)


def test_a_run_config_may_be_a_file_as_for_flwr_run(waggle, tiny: str, tmp_path: Path) -> None:
    """The file says 3 and a note; --set goes before the file, whatever the order."""
    (tmp_path / "over.toml").write_text('step = 3.0\nnote = "of a file"\n')
    done = waggle("run", tiny, "--nodes", "3", "-q", "-c", "over.toml")
    assert "mean [3.0, 3.0, 3.0]\n" in done.stdout, done.stderr
    done = waggle("run", tiny, "--nodes", "3", "-q", "--set", "step=2", "-c", "over.toml")
    assert "mean [2.0, 2.0, 2.0]\n" in done.stdout, done.stderr


def test_a_run_config_file_is_the_only_one_and_is_checked_as_pairs_are(
    tmp_path: Path, waggle, tiny: str
) -> None:
    file = tmp_path / "lr=0.1.toml"
    file.write_text("[model]\nwidth = 3\n")
    assert parse_run_config([str(file)], {}) == {"model": {"width": 3}}
    with pytest.raises(ConfigError, match=r"the only --run-config; .* --set KEY=VALUE"):
        parse_run_config([str(file), "a=1"], {"a": 0})
    for engine in ("local", "flower"):
        done = waggle("run", tiny, "--engine", engine, "-c", str(file))
        assert done.returncode == 2
        assert done.stderr.startswith("error: model.width: expected a key of the app's")


@pytest.mark.parametrize(("text", "reason"), [(None, "No such file"), ("a = ", "Invalid value")])
def test_a_run_config_file_that_cannot_be_read_is_named(
    tmp_path: Path, text: str | None, reason: str
) -> None:
    file = tmp_path / "over.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=rf"--run-config {file}: expected a TOML.*{reason}"):
        parse_run_config([str(file)], {})


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


def test_a_run_that_goes_on_is_asked_what_it_was_asked_before(
    waggle, tiny: str, tmp_path: Path
) -> None:
    """Step 2 and 4 nodes were asked for; the app says 1, and 10 are simulated otherwise."""
    asked = Request(config={"step": 2.0, "note": "", "gone": 1, "outputs": "/elsewhere"})
    with Run.create(tmp_path / "outputs", name="before", request=asked) as run:
        run.record(
            RunStarted(
                name="", strategy="", engine="local", num_rounds=1, nodes=4, config={}, seed=0
            )
        )
    done = waggle("run", tiny, "--resume", "latest")
    assert "mean [3.0, 3.0, 3.0]\nstep 2.0 resume" in done.stdout, done.stderr
    assert "step = 2.0, as the run was asked; --set step=VALUE changes it\n" in done.stderr
    done = waggle("run", tiny, "--resume", "latest", "--set", "step=1.0", "--nodes", "3")
    assert "mean [1.0, 1.0, 1.0]\nstep 1.0 resume" in done.stdout, done.stderr
    done = waggle("run", tiny, "--resume", "latest", "--fork")
    assert "mean [1.5, 1.5, 1.5]\nstep 1.0 resume" in done.stdout, done.stderr


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
    assert run.wait(PATIENCE) == status, log.read_text()
    wait_for_end(family)
    assert "Traceback" not in log.read_text()


def test_events_can_be_read_by_a_program(waggle, tmp_path: Path) -> None:
    """Standard output is the record's lines and nothing else: what clients print goes elsewhere."""
    task = create_project("my-app", tmp_path) / "my_app" / "task.py"
    began = "    began = time.perf_counter()\n"
    task.write_text(task.read_text().replace(began, f"    print('hello')\n{began}"))
    settings = ("--set", "num-server-rounds=1", "--set", "local-epochs=1")
    done = waggle("run", "my-app", "--json", *settings)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["run-started", "run-finished"]
    (folder,) = (tmp_path / "outputs").glob("*/")
    assert done.stdout == (folder / "events.jsonl").read_text()
    assert done.stderr.count("] hello\n") == 5


def test_an_app_without_a_record_has_no_events_and_is_told_so(waggle, tiny: str) -> None:
    done = waggle("run", tiny, "--json")
    assert done.stdout == ""
    assert "--json: expected an app whose strategy keeps a record" in done.stderr


def test_a_pinned_cpu_is_recorded_and_holds_in_the_workers(waggle, tmp_path: Path) -> None:
    """Workers and server compute with AVX2, whatever the processor has beyond it."""
    task = create_project("my-app", tmp_path) / "my_app" / "task.py"
    began = "    began = time.perf_counter()\n"
    shown = "    print(torch.backends.cpu.get_cpu_capability())\n"
    task.write_text(task.read_text().replace(began, f"{shown}{began}"))
    done = waggle(
        *("run", "my-app", "--pin-cpu", "--nodes", "2"),
        *("--set", "num-server-rounds=1", "--set", "local-epochs=1"),
    )
    assert done.stdout.count("] AVX2\n") == 2
    (folder,) = (tmp_path / "outputs").glob("*/")
    machine = json.loads((folder / "run.json").read_text())["machine"]
    assert (machine["cpu"], machine["MKL_CBWR"]) == ("AVX2", "AVX2")
