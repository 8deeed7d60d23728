"""Waiting for what must come, on a machine that may be busy with other work.

No test depends on seconds: it waits for a condition, and ``PATIENCE`` only ends one that would
hang. What must not be waited for takes ``FOR_EVER``, which is far longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import psutil

PATIENCE = 240.0  # s; a quiet machine needs a few
FOR_EVER = 3600.0  # s


def wait_until(holds: Callable[[], bool], otherwise: Callable[[], object] = str) -> None:
    """Wait until a condition holds; fail with what ``otherwise`` returns if it never does."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.05)


def wait_for_end(processes: Iterable[psutil.Process | int]) -> None:
    """Wait until processes have ended, those of other parents too."""
    family = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            family.append(psutil.Process(process) if isinstance(process, int) else process)
    _, alive = psutil.wait_procs(family, timeout=PATIENCE)
    assert [process.name() for process in alive] == []
