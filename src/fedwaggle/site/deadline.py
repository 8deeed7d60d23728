"""A deadline that a client keeps by itself, so that a hung one frees its node.

A server that stops waiting cannot end the process of a client: it hangs, and its node serves no
later round. So the client ends itself, in two steps. First the main thread is interrupted by a
TimeoutError, which becomes an ordinary error reply. Code that catches it, or that never comes
back to Python, has a few seconds more before the process exits with the stacks of its threads.
"""

from __future__ import annotations

import faulthandler
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["DEADLINE_KEY", "deadline"]

DEADLINE_KEY = "client-deadline"
"""Where the server's deadline (s) lies in the config of a message."""

_LAST_SECONDS = 10.0
_STDERR = 2


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End the block, or the process, when its time is over.

    Parameters
    ----------
    seconds : float
        How long the block may take; 0 sets no deadline.

    Raises
    ------
    TimeoutError
        In the main thread, after ``seconds``. In another thread, and wherever this does not end
        the block, the process exits with status 1 ten seconds later.
    """
    if seconds <= 0:
        yield
        return
    faulthandler.dump_traceback_later(seconds + _LAST_SECONDS, exit=True, file=_STDERR)
    try:
        with _interrupted_after(seconds):
            yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def _interrupted_after(seconds: float) -> Iterator[None]:
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not hasattr(signal, "setitimer"):  # Windows has none
        yield
        return

    def interrupt(*_: object) -> None:
        raise TimeoutError(
            f"the client's deadline of {seconds:.0f} s passed, so it ended itself; raise "
            "round-timeout if it needs longer"
        )

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
