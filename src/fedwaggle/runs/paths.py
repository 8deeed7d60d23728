"""Names of the files in the folder of a run."""

from __future__ import annotations

__all__ = ["EVENTS", "REPORT", "REQUEST"]

EVENTS = "events.jsonl"
REQUEST = "run.json"
REPORT = "report.html"
