"""A mistake in an app's code: one traceback, one count, and the error as the last line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fedwaggle.cli.new import create_project
from running import plain_env


def test_a_missing_import_is_shown_once_and_ends_the_run(tmp_path: Path) -> None:
    """Three clients run into it, in the first of 20 rounds."""
    task = create_project("my-app", tmp_path) / "my_app" / "task.py"
    began = "    began = time.perf_counter()\n"
    assert began in task.read_text()
    task.write_text(task.read_text().replace(began, f"    import nothing_like_this\n{began}"))
    waggle = Path(sys.executable).with_name("waggle")
    line = [str(waggle), "run", "my-app", "--nodes", "3", "--set", "fraction-train=1.0"]

    done = subprocess.run(line, cwd=tmp_path, env=plain_env(), capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    told = done.stderr
    assert told.count("Traceback (most recent call last)") == 1
    assert told.count("] ModuleNotFoundError: No module named 'nothing_like_this'") == 1
    assert "tracebacks like those above, not shown: 2" in told
    assert told.splitlines()[-1].endswith(
        "ModuleNotFoundError: No module named 'nothing_like_this' (client-raised x 3 clients)"
    )
    assert "round 2" not in told


def test_verbose_shows_the_traceback_of_each_client(waggle, tiny: str) -> None:
    settings = ("--nodes", "3", "--set", "mode=import")
    assert waggle("run", tiny, *settings).stderr.count("] ModuleNotFoundError: No module") == 1
    told = waggle("run", tiny, *settings, "--verbose").stderr
    assert told.count("] ModuleNotFoundError: No module") == 3
