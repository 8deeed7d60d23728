"""The report of a run: one HTML file, drawn from ``events.jsonl`` alone.

The file holds all that it needs and asks nobody for anything. The way to it has three steps,
each a function of the one before: events, story (``story.tell``), figures and tables, page.
"""

from __future__ import annotations

from fedwaggle.runs.report.render import read_story, render, write_report
from fedwaggle.runs.report.server import ReportServer, serve

__all__ = ["ReportServer", "read_story", "render", "serve", "write_report"]
