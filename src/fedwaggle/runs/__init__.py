"""A run on disk: its folder, its record of events, its models, and what is read from them.

Names are imported when they are first used, so that reading a run needs neither torch nor
Flower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedwaggle.lazy import imported

if TYPE_CHECKING:
    from fedwaggle.runs.opening import open_folder
    from fedwaggle.runs.record import RunRecord, load
    from fedwaggle.runs.request import Request
    from fedwaggle.runs.writer import Run, outputs_root

__all__ = ["Request", "Run", "RunRecord", "load", "open_folder", "outputs_root"]

_HOMES = {
    "Request": "request",
    "Run": "writer",
    "RunRecord": "record",
    "load": "record",
    "open_folder": "opening",
    "outputs_root": "writer",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    return imported(__name__, _HOMES, name)
