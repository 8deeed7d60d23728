"""The page that lists the runs of a folder, with a link to the report of each."""

from __future__ import annotations

from pathlib import Path

from fedwaggle.runs.listing import list_runs
from fedwaggle.runs.listing.table import cells_of, differences
from fedwaggle.runs.report.page import build_index

__all__ = ["render_index"]


def render_index(root: Path) -> str:
    """Return the page of the runs in a folder, the newest first."""
    listings = list_runs(root)
    differ = differences([each.config for each in listings])
    rows = [cells_of(each, values) for each, values in zip(listings, differ, strict=True)]
    return build_index(f"Runs in {root.name}", rows[::-1])
