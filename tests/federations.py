"""Real federations on this machine, as ``deploy/`` sets them up."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[1]
HOSTILE = Path(__file__).parent / "deploy" / "apps" / "hostile_sites"
WAGGLE = Path(sys.executable).with_name("waggle")


def load_script(name: str) -> ModuleType:
    """Import a script of ``deploy/``."""
    spec = importlib.util.spec_from_file_location(f"deploy_{name}", ROOT / "deploy" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


loopback = load_script("loopback")


def has_nginx() -> bool:
    return shutil.which("nginx", path=f"/usr/sbin:{sys.exec_prefix}/bin") is not None


def submit(
    federation: Any,  # Loopback
    app: Path,
    *options: str,
    settings: Mapping[str, object],
    timeout: float = 540,
) -> subprocess.CompletedProcess[str]:
    """Run an app on a federation with ``waggle run --engine superlink``."""
    return subprocess.run(
        _command(app, options, settings),
        env=federation.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


@contextmanager
def submitted(
    federation: Any,  # Loopback
    app: Path,
    *options: str,
    settings: Mapping[str, object],
) -> Iterator[subprocess.Popen[str]]:
    """Do the same in the background."""
    process = subprocess.Popen(
        _command(app, options, settings),
        env=federation.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _command(app: Path, options: Sequence[str], settings: Mapping[str, object]) -> list[str]:
    command = [str(WAGGLE), "run", str(app), "--engine", "superlink", loopback.CONNECTION, *options]
    return command + [
        word for key, value in settings.items() for word in ("--set", f"{key}={value}")
    ]


def wait_for(what: Callable[[], Any], seconds: float = 240) -> Any:
    """Wait until something is true, and return it; fail if it never is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess, OSError):
            if found := what():
                return found
        time.sleep(0.1)
    return pytest.fail(f"nothing came of {what} within {seconds} s")


def processes_of(part: psutil.Process, name: str) -> list[psutil.Process]:
    """Return the processes below a part whose command line names a program."""
    found = []
    for process in part.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any(Path(word).name == name for word in process.cmdline()[:2]):
                found.append(process)
    return found


class PeakMemory:
    """The largest memory of processes while the block is open, by process (MB)."""

    def __init__(self, processes: Callable[[], Sequence[psutil.Process]]) -> None:
        self._processes = processes
        self.peaks: dict[int, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            with suppress(psutil.NoSuchProcess):
                for process in self._processes():
                    used = process.memory_info().rss / 1e6
                    self.peaks[process.pid] = max(self.peaks.get(process.pid, 0.0), used)
