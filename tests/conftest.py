"""The order of the suite."""

from __future__ import annotations

import pytest

# Modules that take longest: where two modules run at a time, none of these is left for the end.
FIRST = ("test_laws.py", "test_flower_driver.py", "test_local_engine.py", "test_when_converged.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest modules begin first; the others keep their order."""
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(FIRST)))
