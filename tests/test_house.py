"""The house can be drawn from memory: a complete map, and folders of at most 14 files."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "fedwaggle"
FOLDERS = [SOURCE, *(file.parent for file in SOURCE.glob("*/**/__init__.py"))]


def test_the_map_of_the_contributing_page_is_the_tree() -> None:
    """Redraw it with ``python scripts/draw_map.py --write``."""
    script = ROOT / "scripts" / "draw_map.py"
    spec = importlib.util.spec_from_file_location("draw_map", script)
    assert spec is not None
    assert spec.loader is not None
    draw_map = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw_map)
    page = (ROOT / "CONTRIBUTING.md").read_text()
    assert draw_map.replaced(page, draw_map.draw()) == page


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_folder_has_at_most_14_files(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= 14


def test_every_folder_says_what_its_files_are_to_each_other() -> None:
    """A package that is opened first has a docstring of more than a name."""
    for folder in FOLDERS:
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert docstring, folder


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout of git")
def test_no_source_file_is_left_out_of_the_repository() -> None:
    """A pattern such as ``site/`` would leave out a package of that name."""
    files = [
        str(path.relative_to(ROOT))
        for folder in ("src", "tests", "quickstart", "templates", "deploy", "docs")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".toml", ".md", ".sh"} and "outputs" not in path.parts
    ]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        cwd=ROOT,
        input="\n".join(files),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ignored.stdout == ""
