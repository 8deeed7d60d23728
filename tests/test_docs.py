"""What the documentation shows is what there is: its examples run, its commands parse."""

from __future__ import annotations

import ast
import doctest
import re
import shlex
import textwrap
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from fedwaggle.cli import app
from fedwaggle.config import default_values

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
HAVE_TESTS_OF_THEIR_OWN = {"reading-runs.md", "configuration.md"}
WORD = re.compile(r"<[a-z-]+>|\.\.\.")  # a place for one's own


def name(page: Path) -> str:
    return str(page.relative_to(ROOT / "docs"))


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language, those in tabs too."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text, flags=re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in found]


def shell_lines() -> list[tuple[str, str]]:
    return [
        (name(page), line)
        for page in PAGES
        for block in blocks(page, "sh")
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("waggle ")
    ]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_examples_run(page: Path) -> None:
    if name(page) in HAVE_TESTS_OF_THEIR_OWN:
        pytest.skip("its examples need files that its own test makes")
    flags = doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
    assert doctest.testfile(str(page), module_relative=False, optionflags=flags).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_is_python(page: Path) -> None:
    """Blocks that are no doctest are parsed; three dots stand for what is left out."""
    for block in blocks(page, "python"):
        ast.parse(block)


@pytest.mark.parametrize(("page", "line"), shell_lines())
def test_commands_exist(page: str, line: str) -> None:
    """Each command parses, and each key that it sets is one of the run config."""
    words = shlex.split(WORD.sub("x", line).split("  #")[0].replace("$seed", "1"), comments=True)
    command = get_command(app).commands[words[1]]
    parsed = command.make_context(words[1], words[2:])
    for setting in parsed.params.get("settings") or []:
        assert setting.partition("=")[0] in default_values(), (page, line)


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"- ([a-z/-]+\.md)$", yaml.dump(yaml.safe_load(text)["nav"]), re.M))
    assert listed == {name(page) for page in PAGES}
