"""The command line starts at once, and fails with one clean message."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

from fedwaggle.cli import app
from waiting import PATIENCE

HEAVY = {"torch", "flwr", "ray", "datasets", "wandb", "plotly"}


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["runs"]])
def test_help_and_readers_load_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from fedwaggle.cli import app\n"
        f"sys.argv = ['waggle', *{arguments}]\n"
        "try:\n    app()\n"
        "except SystemExit as leave:\n    assert leave.code == 0\n"
        f"print('heavy:', sorted({HEAVY} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout.endswith("heavy: []\n"), done.stdout + done.stderr


def test_version_is_the_package_s(waggle) -> None:
    assert waggle("--version").stdout == f"waggle {version('fedwaggle')}\n"


def test_every_command_is_there() -> None:
    names = sorted(command.name for command in app.registered_commands)
    assert names == [
        *("compare", "config", "export", "list", "new", "report", "run", "runs", "track", "watch")
    ]


def test_a_refused_request_is_one_message_and_status_2(waggle) -> None:
    done = waggle("run", "nowhere")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "nowhere/pyproject.toml: expected an app's pyproject.toml" in done.stderr
    assert done.stderr.count("\n") == 1


def test_verbose_shows_where_a_refusal_came_from(waggle) -> None:
    done = waggle("run", "nowhere", "-v")
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "fedwaggle.errors.ConfigError" in done.stderr


def test_an_unknown_option_is_status_2(waggle) -> None:
    assert waggle("run", "--rounds", "3").returncode == 2
