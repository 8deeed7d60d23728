"""How the engine's processes end: in order, like any Python program, but within a few seconds.

A forked worker cannot end quite like one. It is a copy of the fork server, and Python would take
all that was ever imported apart in it: 0.3 s and 170 MB for each worker of an app that uses torch.
So a worker waits for its threads, calls its exit handlers and closes its files, and is gone. The
destructors of its other objects do not run, which Python does not promise at an exit either.

What the import of the app leaves behind exists once, and each fork inherits a copy:

- Exit handlers run in each worker and not in the fork server. A worker stands for a process that
  imported the app by itself; the fork server has seen no client and has nothing to save.
- Finalizers (``weakref.finalize``, so also a ``TemporaryDirectory``) run in the fork server, after
  the last worker: what they remove, the workers share.
- Files are flushed before the first fork: what was written to them at import is there once.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from fedwaggle.text import text_of

__all__ = [
    "LEAVING_SECONDS",
    "Inheritance",
    "exit_status",
    "leave",
    "leave_fork_server",
    "limit_leaving",
]

LEAVING_SECONDS = 5  # that a process has to end in order; the system ends it then

# The class of all streams. ``io.IOBase`` is one that asks an object for its class, and some
# objects answer with a warning.
_STREAM = io.IOBase.__mro__[1]


class Inheritance:
    """What the import of the app left open in the fork server, which each worker has a copy of.

    To be made after the import and before ``gc.freeze``, which hides what is there from searches.

    Attributes
    ----------
    streams : list[io.IOBase]
        Open files; workers close them at their end.
    """

    def __init__(self) -> None:
        self.streams = _open_streams()
        for stream in self.streams:
            with suppress(Exception):  # it is the app's, and may be of any kind
                stream.flush()
        known: dict[Any, Any] = vars(weakref.finalize)["_registry"]
        self._finalizers = [finalizer for finalizer in known if finalizer.atexit]
        for finalizer in self._finalizers:
            finalizer.atexit = False

    def finalize(self) -> None:
        """Remove what the import made for the time of the process, the newest first."""
        for finalizer in reversed(self._finalizers):
            try:
                finalizer()
            except Exception:  # noqa: BLE001  # as at the end of any program, the others go on
                traceback.print_exc()


def exit_status(leaving: SystemExit) -> tuple[int, str]:
    """Return the exit status that Python gives a ``sys.exit``, and the text that it prints.

    Examples
    --------
    >>> [exit_status(SystemExit(code)) for code in (None, 3, "no data")]
    [(0, ''), (3, ''), (1, 'no data')]
    """
    if leaving.code is None:
        return 0, ""
    if isinstance(leaving.code, int):
        return leaving.code & 0xFF, ""
    return 1, text_of(leaving.code)


def limit_leaving() -> None:
    """Have the system end this process in a few seconds, whatever it does until then."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LEAVING_SECONDS)


def leave(status: int, inherited: Sequence[io.IOBase]) -> NoReturn:
    """End this process, a copy of the fork server, with what a Python program does at its end."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads; ends executors
        atexit._run_exitfuncs()
        for stream in sorted([*inherited, *_open_streams()], key=_depth):
            with suppress(Exception):  # it is the app's, and may be of any kind
                stream.close()
    finally:
        os._exit(status)


def leave_fork_server() -> NoReturn:
    """End the fork server, without the exit handlers of the app."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the app may have put its own
            stream.flush()
    os._exit(0)


def _open_streams() -> list[io.IOBase]:
    """Return the files that are open in Python; not those that others write through."""
    found = [thing for thing in gc.get_objects() if issubclass(type(thing), _STREAM)]
    return [stream for stream in found if not isinstance(stream, io.RawIOBase)]


def _depth(stream: io.IOBase) -> int:
    """Return how far below others a stream may be: what writes through another is closed first."""
    if isinstance(stream, io.TextIOBase):
        return 0
    return 2 if type(stream).__module__ == "_io" else 1  # 1: such as a GzipFile
