"""Draw the map of the source tree that stands in CONTRIBUTING.md.

Every folder and file with the first sentence of its docstring::

    python scripts/draw_map.py           # print it
    python scripts/draw_map.py --write   # put it into CONTRIBUTING.md, between its marks
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- map: begin -->", "<!-- map: end -->"
PLACES = ("src/fedwaggle", "quickstart/my_federated_project")


def draw() -> str:
    """Return the map as a Markdown code block."""
    lines = [line for place in PLACES for line in _lines(ROOT / place, 0, f"{place}/")]
    width = max(len(name) for name, _ in lines) + 2
    return "\n".join(["```", *(f"{name:<{width}}{what}".rstrip() for name, what in lines), "```"])


def _lines(folder: Path, depth: int, name: str) -> Iterator[tuple[str, str]]:
    """Yield a line for a package: its own, those of its files, those of the packages in it."""
    yield "  " * depth + name, _summary(folder / "__init__.py")
    for file in sorted(folder.glob("*.py")):
        if file.name != "__init__.py":
            yield "  " * (depth + 1) + file.name, _summary(file)
    for inner in sorted(folder.iterdir()):
        if (inner / "__init__.py").exists():
            yield from _lines(inner, depth + 1, f"{inner.name}/")


def _summary(file: Path) -> str:
    """Return the first line of a module's docstring, without its full stop."""
    docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
    return docstring.partition("\n")[0].rstrip(".")


def replaced(page: str, drawn: str) -> str:
    """Return the page with the map between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{drawn}\n{END}{after}"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(replaced(PAGE.read_text(), draw()))
    else:
        print(draw())
