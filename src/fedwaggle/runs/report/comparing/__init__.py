"""Runs side by side: groups of runs that differ by nothing but their seed, and the page of them.

::

    groups       runs as groups, their tables, and what sets groups apart
    parallel     what each group was asked, and what came of it, as lines
    page         the page
"""

from __future__ import annotations

from fedwaggle.runs.report.comparing.page import write_comparison

__all__ = ["write_comparison"]
