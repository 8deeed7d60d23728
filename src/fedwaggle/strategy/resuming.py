"""What may go on from a resume point: the same nodes, the same model, the same seed."""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from fedwaggle.errors import RunError
from fedwaggle.grids import is_simulated
from fedwaggle.runs import Run
from fedwaggle.runs.checkpoints import Snapshot
from fedwaggle.runs.opening import nodes_of
from fedwaggle.strategy.averaging.arrays import Template

__all__ = [
    "constructor_names",
    "refuse_another_model",
    "refuse_another_seed",
    "refuse_other_nodes",
]


def refuse_other_nodes(run: Run, grid: Grid) -> None:
    """Refuse to resume with other nodes where each has its part of the data by its number."""
    if run.is_fork or not is_simulated(grid):
        return
    before, now = nodes_of(run.path), len(list(grid.get_node_ids()))
    if before is not None and before != now:
        raise RunError(
            f"nodes: the run has {before}, and now there are {now}, so that every client would "
            f"have other data; resume with {before} (--nodes {before}), or --fork the run"
        )


def refuse_another_model(run: Run, snapshot: Snapshot, asked: Template) -> None:
    """Refuse to put what a resume point holds into a model that it does not fit."""
    held = {key: (array.shape, array.dtype) for key, array in snapshot.model.items()}
    wanted = {key: (spec.shape, spec.dtype) for key, spec in asked.specs.items()}
    differing = sorted(key for key in {*held, *wanted} if held.get(key) != wanted.get(key))
    if differing:
        key = differing[0]
        raise RunError(
            f"{run.path.name}: its resume point is of another model: {len(differing)} arrays "
            f"differ, such as {key!r}: {_form(held.get(key))} there, {_form(wanted.get(key))} now; "
            "bring that model back, or begin a new run"
        )


def refuse_another_seed(run: Run, snapshot: Snapshot, seed: int) -> None:
    """Refuse to draw the other rounds of a run by another seed; a fork may."""
    before = snapshot.values.get("seed", seed)
    if before != seed and not run.is_fork:
        raise RunError(
            f"seed: {run.path.name} was begun with seed {before}, and the strategy now has {seed}; "
            f"make it with seed={before}, or fork the run"
        )


def constructor_names(cls: type) -> frozenset[str]:
    """Return the names of everything that the classes behind ``cls`` take when they are made."""
    return frozenset(
        name
        for base in cls.__mro__
        if "__init__" in vars(base)
        for name in signature(vars(base)["__init__"]).parameters
    )


def _form(kind: tuple[tuple[int, ...], np.dtype[Any]] | None) -> str:
    return "nothing" if kind is None else f"{kind[1]}{list(kind[0])}"
