"""A tracker in a process of its own, which follows the run's record.

The process (``python -m fedwaggle.trackers``) is in a session of its own, so that Ctrl-C stops
the run and lets the tracker finish. If the run is killed, the pipe to it ends, and the process
shows all that is on record before it ends, too. The run never waits for it but at its end.
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
import threading
from contextlib import suppress
from pathlib import Path

from fedwaggle.text import printable

__all__ = ["TrackerProcess"]

logger = logging.getLogger("flwr.fedwaggle")  # below Flower's, so that its log shows it


class TrackerProcess:
    """Starts ``python -m fedwaggle.trackers`` for a run.

    Parameters
    ----------
    name : str
        The tracker's name, for warnings.
    module : str
        The module that has its ``open_tracker``.
    run_path : Path
        The run's folder.
    project : str
        The project that the run is shown under.
    past : int
        How many bytes of ``events.jsonl`` were there before the run began, or went on.

    Attributes
    ----------
    is_dropped : bool
        Whether it failed, or was not done in time; it has been logged as a warning then.
    """

    def __init__(self, name: str, module: str, run_path: Path, *, project: str, past: int) -> None:
        self.name = name
        self.is_dropped = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "fedwaggle.trackers"),
                *(module, str(run_path), project, str(past)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            start_new_session=True,
            env=_environment(),
        )
        atexit.register(self._kill)  # for one that hangs; all others have ended by then
        # A daemon: the interpreter does not wait for a tracker that hangs.
        self._listener = threading.Thread(target=self._listen, name=f"tracker-{name}", daemon=True)
        self._listener.start()

    def finish(self) -> None:
        """Report that the record is complete; does not wait."""
        with suppress(OSError, ValueError):  # it has ended already
            # Forked workers may hold the pipe open, so its end alone may not arrive.
            self._process.stdin.write("\n")  # type: ignore[union-attr]  # it is a pipe
            self._process.stdin.close()  # type: ignore[union-attr]

    def close(self, timeout: float = 15.0) -> None:
        """Let the process finish, or kill it.

        Parameters
        ----------
        timeout : float (default: 15.0)
            The longest that this waits (s).
        """
        self.finish()
        self._listener.join(timeout)
        if self._listener.is_alive():
            self._drop(
                f"it was not done {timeout:g} s after the run; what it has so far is kept in the "
                "run's folder"
            )
            self._kill()
            self._listener.join()
        atexit.unregister(self._kill)

    def _listen(self) -> None:
        """Log what the process warns of, until it ends."""
        last = ""
        with self._process.stdout as answers:  # type: ignore[union-attr]  # it is a pipe
            for line in answers:
                if (warning := _warning_in(line)) is None:
                    last = line
                else:
                    logger.warning("Tracker %s: %s", self.name, warning)
        if self._process.wait() != 0:
            self._drop(self._reason(last))
        self._errors.close()

    def _reason(self, answer: str) -> str:
        """Return why the process failed: its answer, or else the last line that it printed."""
        with suppress(ValueError):
            return str(json.loads(answer))
        self._errors.seek(0)
        tail = self._errors.read()[-2000:].decode(errors="replace").strip()
        return f"its process ended early: {printable(tail.rpartition(chr(10))[2])}"

    def _drop(self, reason: str) -> None:
        """Log that the tracker is dropped, once."""
        if self.is_dropped:
            return
        self.is_dropped = True
        logger.warning(
            "Tracker %s is dropped: %s. The run goes on, and its events.jsonl is complete.",
            self.name,
            reason,
        )

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # with the processes that it started


def _warning_in(line: str) -> str | None:
    """Return what a line of the process warns of, if it does."""
    try:
        answer = json.loads(line)
    except ValueError:
        return None
    return str(answer["warning"]) if isinstance(answer, dict) and "warning" in answer else None


def _environment() -> dict[str, str]:
    """Return the environment of the process: it finds the packages that this one finds."""
    kept = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    packages = os.pathsep.join(path for path in sys.path if path)
    return {**kept, "PYTHONPATH": packages, "PYTHONUTF8": "1"}
