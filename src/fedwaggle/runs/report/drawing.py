"""The report at the end of a run, drawn by a short process of its own.

Drawing takes memory for every update of the run. The process of the server would keep that
memory, and the modules that draw; so another one draws (``python -m fedwaggle.runs.report``).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fedwaggle.text import printable

__all__ = ["NOT_WRITTEN", "DrawingFailed", "PageNotWritten", "draw_report"]

NOT_WRITTEN = 3  # exit status of the process: the page is drawn, and cannot be written
DEADLINE = 120  # seconds


class DrawingFailed(Exception):  # noqa: N818  # never an error of ours: it ends up as a warning
    """The report was not drawn."""


class PageNotWritten(DrawingFailed):
    """The report was drawn, and its file cannot be written."""


def draw_report(run: Path, *, deadline: int = DEADLINE) -> None:
    """Draw the report of a run, in another process.

    Parameters
    ----------
    run : Path
        The folder of the run; its record is complete.
    deadline : int (default: 120)
        How long it may take (s).

    Raises
    ------
    DrawingFailed
        If there is no report. The message is the reason.
    """
    packages = os.pathsep.join(path for path in sys.path if path)  # it finds what we find
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fedwaggle.runs.report", str(run), str(deadline)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=deadline,
            check=False,
            start_new_session=True,  # Ctrl-C stops the run, and its report is drawn
            env={**os.environ, "PYTHONPATH": packages, "PYTHONUTF8": "1"},
        )
    except OSError as error:
        raise DrawingFailed(f"its process cannot be started ({error})") from error
    except subprocess.TimeoutExpired:
        raise DrawingFailed(f"it was not drawn within {deadline} s") from None
    reason = printable(done.stderr.decode(errors="replace").strip().rpartition("\n")[2], 300)
    if done.returncode == NOT_WRITTEN:
        raise PageNotWritten(reason)
    if done.returncode != 0:
        raise DrawingFailed(reason or f"its process ended ({done.returncode})")
