"""The map of the house is complete."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


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
