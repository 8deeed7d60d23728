"""Types are part of the contract: what a user's editor and type checker see is tested too."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
INFERRED = Path(__file__).with_name("inferred.py")


def test_a_type_checker_sees_the_types_that_are_written_beside() -> None:
    """``updates[0].metadata`` is the project's class, ``read_config`` gives what it was asked."""
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-pretty", "--show-error-codes", str(INFERRED)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    revealed = dict(re.findall(r'inferred\.py:(\d+): note: Revealed type is "(.*)"', run.stdout))
    expected = {
        str(number): line.rpartition("  # ")[2]
        for number, line in enumerate(INFERRED.read_text().splitlines(), start=1)
        if line.lstrip().startswith("reveal_type(")
    }
    assert run.returncode == 0, run.stdout + run.stderr
    assert {number: short(revealed) for number, revealed in revealed.items()} == expected


def short(revealed: str) -> str:
    """Return mypy's words without the modules of the names."""
    return re.sub(r"(?<![\w'])(?:\w+\.)+(?=\w)", "", revealed)
