"""The command line as people call it: the installed ``waggle``, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from running import plain_env
from waiting import PATIENCE

collect_ignore = ["apps"]  # Flower apps, which Flower imports

Waggle = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def waggle(tmp_path: Path) -> Waggle:
    """Return a function that runs ``waggle`` in an empty folder."""

    def call(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("waggle")), *arguments]
        wide = {"COLUMNS": "200", "NO_COLOR": "1"}
        return subprocess.run(
            command,
            cwd=tmp_path,
            env={**plain_env(), **wide, **env},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    return call


@pytest.fixture
def tiny() -> str:
    """Return the folder of an app without PyTorch that takes a second."""
    return str(Path(__file__).parent / "apps" / "tiny")
