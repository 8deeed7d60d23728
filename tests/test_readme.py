"""What the README shows is what there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from fedwaggle.cli import app
from fedwaggle.engine.app import read_defaults

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def shell_lines() -> list[list[str]]:
    """Return the words of each command, without comments."""
    lines = "".join(blocks("sh")).splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def test_python_is_the_quickstart_s_own() -> None:
    files = (ROOT / "quickstart" / "my_federated_project").glob("*.py")
    source = "\n".join(file.read_text(encoding="utf-8") for file in files)
    shown = [part for block in blocks("python") for part in block.split("    ...\n")]
    assert len(shown) == 3
    for part in shown:
        assert part in source, part


@pytest.mark.parametrize("words", shell_lines(), ids=" ".join)
def test_commands_exist(words: list[str]) -> None:
    """Each `waggle` command parses, each `make` target is there, and each key is the app's."""
    config = read_defaults(ROOT / "quickstart")
    if words[0] == "waggle":
        command = get_command(app).commands[words[1]]
        parsed = command.make_context(words[1], words[2:])
        for setting in parsed.params.get("settings") or []:
            assert setting.partition("=")[0] in config
    elif words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert words[1] in targets
    else:
        assert words[0] in ("pip", "cd", "flwr")


def test_keys_and_defaults_are_the_quickstart_s() -> None:
    config = read_defaults(ROOT / "quickstart")
    table = README.split("| key | default | |\n")[1].split("\n\n")[0].splitlines()[1:]
    for row in table:
        keys, defaults = (cell.strip() for cell in row.split("|")[1:3])
        values = defaults.replace("`", "").split(", ")
        for key, value in zip(re.findall(r"`([^`]+)`", keys), values, strict=True):
            assert type(config[key])(value) == config[key], key


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_the_test_command_is_make_test() -> None:
    assert "make test " in blocks("sh")[0]
