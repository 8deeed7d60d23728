"""The process that clears up if the one that drives Flower is killed outright.

``python -m fedwaggle.engine.flower.guard PID FOLDER`` watches a SuperLink and what comes from
it. Its standard input is a pipe that ends when the driver does, however that dies. Then
everything is ended, and the folder of the run is removed.
"""

from __future__ import annotations

import select
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

from fedwaggle.engine.processes import ProcessFamily

__all__ = ["start_guard"]

LOOK_SECONDS = 2.0


def start_guard(leader_pid: int, folder: Path) -> subprocess.Popen[bytes]:
    """Start the guard; kill it when there is nothing to guard any more.

    Parameters
    ----------
    leader_pid : int
        The process to end, with all that came from it.
    folder : Path
        What to remove then.
    """
    return subprocess.Popen(
        [sys.executable, "-m", __name__, str(leader_pid), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def main(leader_pid: int, folder: Path) -> None:
    """Wait until the driver is gone, and clear up behind it."""
    try:
        family = ProcessFamily(leader_pid)
    except psutil.NoSuchProcess:  # it ended before it was looked at
        return
    while not select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:
        family.members()  # learn who belongs to it while it can be seen
    family.kill()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
