"""A command, measured from outside: how long it took, how much memory it had, what it noted."""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil

from fedwaggle.engine.processes import ProcessFamily

LOOK_SECONDS = 0.5  # between two looks at a process family; one takes about 1 ms
LIMIT_SECONDS = 600.0


@dataclass(frozen=True)
class Outcome:
    """What a run took.

    Attributes
    ----------
    round_seconds : float
        Median over the rounds but the first, in which processes start and load their data.
    total_seconds : float
        From the command to its end.
    peak_bytes : int
        Most memory of all processes together at one time (PSS: shared pages count once).
    parts : dict[str, float]
        Whatever else was noted.
    """

    round_seconds: float = 0.0
    total_seconds: float = 0.0
    peak_bytes: int = 0
    parts: dict[str, float] = field(default_factory=dict)


class Measured:
    """A command in a session of its own, watched until it ends; leaving it kills what is left."""

    def __init__(self, command: list[str], folder: Path, watch_memory: bool) -> None:
        self._folder = folder
        self._watch_memory = watch_memory
        self._peak = 0
        self._done = threading.Event()
        with (folder / "output.log").open("wb") as log:
            self.began = time.time()
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.seconds = 0.0
        self.family = ProcessFamily(self._process.pid)
        self._watcher = threading.Thread(target=self._watch)

    def __enter__(self) -> Measured:
        self._watcher.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._watcher.join()
        self.family.kill()
        self._process.wait()

    def wait(self) -> None:
        """Wait for the command's end."""
        self._process.wait(LIMIT_SECONDS)
        self.seconds = time.time() - self.began
        self._done.set()
        self._watcher.join()

    def outcome(self) -> Outcome:
        """Return what was measured, with what the app wrote down."""
        file = self._folder / "result.json"
        if self._process.returncode != 0 or not file.exists():
            raise SystemExit((self._folder / "output.log").read_text()[-4000:])
        record = json.loads(file.read_text())
        marks = record.pop("marks")
        rounds = [after - before for before, after in pairwise(marks[1:])]
        parts = {key: median_of(value) for key, value in record.items()}
        parts["first mark"] = marks[0] - self.began
        return Outcome(
            statistics.median(rounds) if rounds else 0.0, self.seconds, self._peak, parts
        )

    def _watch(self) -> None:
        """Learn who belongs to the family while it can be seen, and what memory it has."""
        while not self._done.wait(LOOK_SECONDS):
            members = self.family.members()
            if self._watch_memory:
                self._peak = max(self._peak, sum(pss_of(process) for process in members))


def median_of(value: float | list[float]) -> float:
    """Return a number as it is, and the median of a list but its first."""
    return statistics.median(value[1:] or value) if isinstance(value, list) else value


def pss_of(process: psutil.Process) -> int:
    """Return a process's memory, with its share of what it shares; 0 if it has just ended."""
    with suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a contestant: one thread a process, and nothing of the user's."""
    own = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "OMP_NUM_THREADS": "1",
        "FLWR_HOME": str(folder),
        "WAGGLE_OUTPUTS": str(folder / "outputs"),
        "RESULT_FILE": str(folder / "result.json"),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
        "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(folder),
    }
    return {**os.environ, **own}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder for one run, with a name short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
