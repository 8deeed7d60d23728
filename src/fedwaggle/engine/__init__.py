"""What carries a run: the local engine, and the driver of Flower's own.

``run`` is the local engine: it runs any Flower app folder in this process and a pool of worker
processes. ``read_app`` reads such a folder. Both are loaded on first use, so that importing
this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedwaggle.lazy import imported

if TYPE_CHECKING:
    from fedwaggle.engine.app import App, read_app
    from fedwaggle.engine.local.run import EngineResult, run

__all__ = ["App", "EngineResult", "read_app", "run"]

_HOMES = {"App": "app", "EngineResult": "local.run", "read_app": "app", "run": "local.run"}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    return imported(__name__, _HOMES, name)
