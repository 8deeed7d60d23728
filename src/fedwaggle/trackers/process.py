"""A sink in a process of its own, fed through a pipe.

The process (``python -m fedwaggle.trackers``) is in a session of its own, so that Ctrl-C stops
the run and lets the tracker finish. If the run is killed, the pipe ends, and the process shows
all that it was sent before it ends, too.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress

from fedwaggle.errors import TrackerError
from fedwaggle.runs.events import Event, to_line
from fedwaggle.text import printable

__all__ = ["ProcessSink"]

logger = logging.getLogger("flwr.fedwaggle")  # below Flower's, so that its log shows it

CLOSE_SECONDS = 12.0  # less than a run waits for its sinks, so that a hanging process is ended


class ProcessSink:
    """Starts ``python -m fedwaggle.trackers`` and hands events to it.

    Parameters
    ----------
    name : str
        The tracker's name, for warnings.
    arguments : Sequence[str]
        The arguments of the process.
    close_seconds : float (default: 12.0)
        How long the process may take to finish (s) before it is killed.

    Raises
    ------
    TrackerError
        If the process says that it cannot open its tracker, or ends without a word.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], *, close_seconds: float = CLOSE_SECONDS
    ) -> None:
        self._name = name
        self._close_seconds = close_seconds
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fedwaggle.trackers", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            start_new_session=True,
            env=_environment(),
        )
        atexit.register(self._kill)  # for one that hangs; all others have ended by then
        try:
            self._await_ready()
        except TrackerError:
            self._kill()  # it has nothing to finish
            self._release()
            raise

    def record(self, event: Event) -> None:
        """Send an event.

        Raises
        ------
        TrackerError
            If the process has ended; the message is what it said last.
        """
        try:
            self._send(to_line(event))
        except OSError:
            self._finish()
            raise TrackerError("its process ended early") from None

    def close(self) -> None:
        """Let the process finish.

        Raises
        ------
        TrackerError
            If it fails, or is not done in time and is killed.
        """
        with suppress(OSError):  # it has ended already: what it said comes below
            self._send("")  # forked workers may hold the pipe open, so its end alone may not come
        self._finish()

    def _await_ready(self) -> None:
        """Log what the process warns of, until it says that it is ready."""
        for line in self._process.stdout:  # type: ignore[union-attr]  # it is a pipe
            if (warning := _warning_in(line)) is None:
                return self._heed(line)
            logger.warning("Tracker %s: %s", self._name, warning)
        return self._heed("")

    def _send(self, line: str) -> None:
        stdin = self._process.stdin
        stdin.write(line + "\n")  # type: ignore[union-attr]  # it is a pipe
        stdin.flush()  # type: ignore[union-attr]

    def _finish(self) -> None:
        try:
            said, _ = self._process.communicate(timeout=self._close_seconds)
            if self._process.returncode != 0:
                self._heed(said)
        except subprocess.TimeoutExpired:
            self._kill()
            raise TrackerError(
                f"it was not done {self._close_seconds:g} s after the run; "
                "what it has so far is kept in the run's folder"
            ) from None
        finally:
            self._release()

    def _release(self) -> None:
        """Forget the process, which has ended."""
        atexit.unregister(self._kill)
        self._errors.close()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what was meant for it has no reader any more
                pipe.close()  # type: ignore[union-attr]  # it is a pipe

    def _heed(self, said: str) -> None:
        """Raise what the process said, unless it is ready."""
        if said.strip() == json.dumps("ready"):
            return
        try:
            message = str(json.loads(said))
        except ValueError:  # it crashed: the end of what it printed must do
            self._errors.seek(0)
            tail = self._errors.read()[-2000:].decode(errors="replace").strip()
            message = f"its process ended early: {printable(tail.rpartition(chr(10))[2])}"
        raise TrackerError(message)

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # with the processes that it started
        self._process.wait()


def _warning_in(line: str) -> str | None:
    """Return what a line of the process warns of, if it does."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return str(said["warning"]) if isinstance(said, dict) and "warning" in said else None


def _environment() -> dict[str, str]:
    """Return the environment of the process: it finds the packages that this one finds."""
    kept = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    packages = os.pathsep.join(path for path in sys.path if path)
    return {**kept, "PYTHONPATH": packages, "PYTHONUTF8": "1"}
