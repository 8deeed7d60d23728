"""The report of a run: one HTML file, drawn from ``events.jsonl`` alone.

::

    events ─ story ─ charts/, tables, summary ─ render ─ page
             │        (fields, stats, words)
             comparison ─ compare: several runs side by side

The file holds all that it needs and makes no request. ``server`` serves a page that follows a run;
``drawing`` has a report drawn in a process of its own at the end of a run. Names are imported when
they are first used, so that the process of a run does not hold what draws.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedwaggle.lazy import imported

if TYPE_CHECKING:
    from fedwaggle.runs.report.render import read_story, write_report
    from fedwaggle.runs.report.server import ReportServer, serve

__all__ = ["ReportServer", "read_story", "serve", "write_report"]

_HOMES = {
    "ReportServer": "server",
    "read_story": "render",
    "serve": "server",
    "write_report": "render",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    return imported(__name__, _HOMES, name)
