"""Who takes part: each runs a job in fresh processes, and what it took is measured from outside.

* :class:`BareLoop`: ``torch_loop.py``, the limit.
* :class:`StockFlower`: ``flwr run`` with its own SuperLink and Ray, one core for each client.
* :class:`Waggle`: ``waggle run``, our local engine.
* :class:`MemoryCopies`: the copies of memory that a round cannot do without.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
from measuring import LOOK_SECONDS, Measured, Outcome, scratch

from fedwaggle.engine.processes import ProcessFamily

HERE = Path(__file__).parent
END_SECONDS = 30.0  # Ray takes up to 20 s to leave


@dataclass(frozen=True)
class Job:
    """An app to run, on how many nodes, with which config.

    Attributes
    ----------
    watch_memory : bool
        Whether to look at the memory of all processes while it runs.
    result_key : str
        Key of the config for the file that the app writes; "" if it takes ``RESULT_FILE`` from
        the environment.
    """

    app: Path
    nodes: int
    config: dict[str, Any]
    watch_memory: bool = False
    result_key: str = "result-file"


class Contestant(Protocol):
    """Something that runs a job."""

    def run(self) -> Outcome:
        """Run it once."""


@dataclass(frozen=True)
class BareLoop:
    """A bare torch loop on two processes."""

    job: Job

    def run(self) -> Outcome:
        """Run it once."""
        with scratch() as folder:
            config = {**self.job.config, "nodes": self.job.nodes}
            config["result-file"] = str(folder / "result.json")
            (folder / "config.json").write_text(json.dumps(config))
            command = [sys.executable, str(HERE / "torch_loop.py"), str(folder / "config.json")]
            with Measured(command, folder, self.job.watch_memory) as measured:
                measured.wait()
            return measured.outcome()


@dataclass(frozen=True)
class Waggle:
    """Our engine, as its users start it."""

    job: Job

    def run(self) -> Outcome:
        """Run it once."""
        with scratch() as folder:
            waggle = str(Path(sys.executable).with_name("waggle"))
            command = [waggle, "run", str(self.job.app), "--nodes", str(self.job.nodes), "--quiet"]
            for key, value in config_of(self.job, folder).items():
                command += ["--set", f"{key}={value}"]
            with Measured(command, folder, self.job.watch_memory) as measured:
                measured.wait()
            return measured.outcome()


@dataclass(frozen=True)
class StockFlower:
    """``flwr run``, which starts its SuperLink itself."""

    job: Job

    def run(self) -> Outcome:
        """Run it once, and stop what it leaves running."""
        with scratch() as folder:
            (folder / "config.toml").write_text(
                '[superlink]\ndefault = "local"\n[superlink.local]\naddress = ":local-in-memory:"\n'
            )
            values = config_of(self.job, folder).items()
            settings = " ".join(f"{key}={json.dumps(value)}" for key, value in values)
            nodes = f"num-supernodes={self.job.nodes} client-resources-num-cpus=1"
            flwr = str(Path(sys.executable).with_name("flwr"))
            command = [flwr, "run", str(self.job.app), "local", "--stream"]
            command += ["--federation-config", nodes, "--run-config", settings]
            with Measured(command, folder, self.job.watch_memory) as measured:
                measured.wait()
                end_superlink(measured.family)
            return measured.outcome()


@dataclass(frozen=True)
class MemoryCopies:
    """One copy of the model on its way out, one for each reply, and one sum over the replies."""

    job: Job

    def run(self) -> Outcome:
        """Copy and sum once; buffers are in place, so that it is memory that is measured."""
        model = np.ones(self.job.config["parameters"], np.float32)
        copy, total = np.ones_like(model), np.ones_like(model)
        began = time.perf_counter()
        np.copyto(copy, model)
        for _ in range(self.job.config["clients-per-round"]):
            np.copyto(copy, model)
            total += copy
        seconds = time.perf_counter() - began
        return Outcome(seconds, seconds)


def config_of(job: Job, folder: Path) -> dict[str, Any]:
    """Return the app's config with the place of its result."""
    result = {job.result_key: str(folder / "result.json")} if job.result_key else {}
    return {**job.config, **result}


def end_superlink(family: ProcessFamily) -> None:
    """Wait until the simulation has left, then ask the SuperLink to end."""
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline and named(family, "flwr-simulation"):
        time.sleep(LOOK_SECONDS)
    servers = named(family, "flower-superlink")
    for server in servers:
        server.terminate()
    psutil.wait_procs(servers, timeout=END_SECONDS)


def named(family: ProcessFamily, command: str) -> list[psutil.Process]:
    """Return the processes of a family in which a command runs."""
    found = []
    for process in family.members():
        with suppress(psutil.Error):
            if any(Path(word).name == command for word in process.cmdline()[:2]):
                found.append(process)
    return found
