"""``waggle run --engine superlink``: what can be known before anything is submitted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import running
from fedwaggle.engine.flower.federation import check_connection

CONFIG = """
[superlink]
default = "lab"
[superlink.lab]
address = "127.0.0.1:1"
insecure = true
[superlink.local]
address = ":local:"
"""


@pytest.fixture
def home(tmp_path: Path) -> Mapping[str, str]:
    (tmp_path / "config.toml").write_text(CONFIG)
    return {"FLWR_HOME": str(tmp_path)}


@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("lab", None),
        ("lap", "(lab, local), got lap; write waggle run APP --engine superlink NAME"),
        (None, "(lab, local), got none"),
        ("default", "got default"),
        ("local", "connection local: expected the address of a SuperLink, got Flower's own"),
    ],
)
def test_a_connection_is_one_that_flower_knows(
    name: str | None, mistake: str | None, home: Mapping[str, str]
) -> None:
    mistakes = check_connection(name, home)
    assert len(mistakes) == (mistake is not None)
    assert mistake is None or mistake in mistakes[0]


def test_without_a_file_there_is_no_connection(tmp_path: Path) -> None:
    assert "(none), got lab" in check_connection("lab", {"FLWR_HOME": str(tmp_path)})[0]


def waggle(home: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("waggle")), "run", str(running.QUICKSTART)]
    return subprocess.run(
        [*command, *words],
        env={**os.environ, **home},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_all_mistakes_are_told_together(home: Mapping[str, str]) -> None:
    options = ["--nodes", "3", "--pool", "ray", "--set", "lrr=1", "--fork"]
    done = waggle(home, "--engine", "superlink", "lap", *options)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 5, lines
    for word, line in zip(["connection", "--nodes", "--pool", "--fork", "lrr"], lines, strict=True):
        assert f"error: {word}" in line


def test_a_connection_needs_its_engine(home: Mapping[str, str]) -> None:
    done = waggle(home, "lab")
    assert (done.returncode, done.stderr.count("error: ")) == (2, 1)
    assert "connection lab: expected --engine superlink beside it" in done.stderr


def test_a_superlink_that_does_not_answer_is_an_error(home: Mapping[str, str]) -> None:
    done = waggle(home, "--engine", "superlink", "lab")
    assert done.returncode == 1
    assert "flwr run refused" in done.stderr
    assert "127.0.0.1:1" in done.stderr
