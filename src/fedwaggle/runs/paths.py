"""Names of the files of a run, and the order of the runs in a folder, whatever clocks say.

A clock can jump back, and many runs can begin in one second. So each run is given a number when
its folder is made, one above all that are there; it stands in ``run.json``.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["BEST", "EVENTS", "REPORT", "REQUEST", "next_number", "one_at_a_time", "run_folders"]

BEST = "best.pth"
EVENTS = "events.jsonl"
REQUEST = "run.json"
REPORT = "report.html"


def run_folders(root: Path) -> list[Path]:
    """Return the folders of runs in a folder, the oldest first; the last one is the latest.

    Runs without a number come first, by their names.
    """
    found = (events.parent for events in root.glob(f"*/{EVENTS}"))
    return sorted(found, key=lambda path: (_number_of(path), path.name))


def next_number(root: Path) -> int:
    """Return the number of the run that begins now; see :func:`one_at_a_time`."""
    return 1 + max((_number_of(request.parent) for request in root.glob(f"*/{REQUEST}")), default=0)


@contextmanager
def one_at_a_time(root: Path) -> Iterator[None]:
    """Let one process at a time begin a run in a folder, so that no two get one number."""
    descriptor = os.open(root, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks; equal numbers go by name
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # and with it the lock


def _number_of(run: Path) -> int:
    """Return a run's number; 0 if it has none that can be read."""
    try:
        number = json.loads((run / REQUEST).read_bytes())["number"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0
    return number if isinstance(number, int) else 0
