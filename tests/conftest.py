"""The order of the suite, and a heap that is quick to search."""

from __future__ import annotations

import gc

import pytest

# Modules that take longest: where two modules run at a time, none of these is left for the end.
FIRST = ("test_laws.py", "test_flower_driver.py", "test_local_engine.py", "test_when_converged.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest modules begin first; the others keep their order."""
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(FIRST)))


@pytest.fixture(autouse=True, scope="module")
def frozen_heap() -> None:
    """Spare the garbage collector what earlier modules have imported and left.

    Flower collects after each array that it converts to torch, which took 0.1 s a time here.
    """
    gc.collect()
    gc.freeze()
