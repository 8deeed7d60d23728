"""A run on disk: its folder, its record of events, its models, and what is read from them.

Names are imported when they are first used, so that reading a run needs neither torch nor
Flower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedwaggle.lazy import imported

if TYPE_CHECKING:
    from fedwaggle.runs.folder import Run, outputs_root
    from fedwaggle.runs.record import RunRecord, load
    from fedwaggle.runs.requests import Request
    from fedwaggle.runs.resuming import open_run

__all__ = ["Request", "Run", "RunRecord", "load", "open_run", "outputs_root"]

_HOMES = {
    "Request": "requests",
    "Run": "folder",
    "RunRecord": "record",
    "load": "record",
    "open_run": "resuming",
    "outputs_root": "folder",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    return imported(__name__, _HOMES, name)
