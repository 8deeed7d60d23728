"""Which engine carries a run, by the grid that it hands to the server."""

from __future__ import annotations

from flwr.serverapp import Grid

from fedwaggle.grids import NamedGrid

__all__ = ["SIMULATED", "SIMULATION", "engine_name"]

SIMULATION = "flower-simulation"
SIMULATED = {SIMULATION, "local"}
"""Engines whose nodes are as many as they were told, each with its part of the data by number."""

_BY_GRID = {"InMemoryGrid": SIMULATION, "HttpGrid": "flower-superlink"}


def engine_name(grid: Grid) -> str:
    """Return the name of an engine; of one that is not known, its grid's class.

    Parameters
    ----------
    grid : Grid
        What carries the messages. A :class:`~fedwaggle.grids.NamedGrid` names its engine itself.
    """
    if isinstance(grid, NamedGrid):
        return grid.engine_name
    kind = type(grid).__name__
    return _BY_GRID.get(kind, kind)
