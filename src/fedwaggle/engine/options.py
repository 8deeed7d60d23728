"""What an engine is asked for, checked before anything starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Literal, TypeAlias

from fedwaggle.errors import ConfigError

__all__ = [
    "DEFAULT_POOL",
    "PINNED_CPU",
    "EngineOptions",
    "PoolName",
    "cores_here",
    "gpus_here",
    "visible_gpus",
    "worker_devices",
]

PoolName: TypeAlias = Literal["linux", "processes", "ray"]
DEFAULT_POOL: PoolName = "linux" if sys.platform == "linux" else "processes"

_MOST_WORKERS = 256  # a quarter of the slots: a fork server that died is replaced by another
PINNED_CPU = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"}
"""Variables with which processors of different kinds compute with the same instructions."""

_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """The options of :func:`fedwaggle.engine.run`, which describes them, for every engine.

    Raises
    ------
    ConfigError
        If a number is out of its range. Every mistake is in it.
    """

    nodes: int = 10
    workers: int | None = None
    client_timeout: float | None = None
    gpus: int | None = None
    clients_per_gpu: int = 1
    isolate: bool = False
    seed: int | None = None
    node_config: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    quiet: bool = False
    verbose: bool = False
    events: bool = False
    pool: PoolName = DEFAULT_POOL
    ray_address: str | None = None

    def __post_init__(self) -> None:
        checks = {
            f"nodes: expected at least 1, got {self.nodes}": self.nodes >= 1,
            f"workers: expected 0 to {_MOST_WORKERS}, got {self.workers}; leave it out for one "
            "a core": self.workers is None or 0 <= self.workers <= _MOST_WORKERS,
            "workers: 0 runs clients in the server's process, which has no client-timeout, no "
            "isolate and no gpus; leave them out, or set workers to 1": (
                self.workers != 0 or not (self.client_timeout or self.isolate or self.gpus)
            ),
            "pool: linux needs Linux; leave it out, or choose processes": (
                self.pool != "linux" or sys.platform == "linux"
            ),
            f"pool: {self.pool} has no client-timeout, no isolate, no gpus and no workers 0; leave "
            "them out, or choose the pool linux": (
                self.pool == "linux"
                or not (self.client_timeout or self.isolate or self.gpus or self.workers == 0)
            ),
            "ray-address: expected the pool ray beside it; leave it out, or choose ray": (
                self.ray_address is None or self.pool == "ray"
            ),
            f"client-timeout: expected seconds above 0, got {self.client_timeout}; leave it out "
            "for no limit": self.client_timeout is None or self.client_timeout > 0,
            f"gpus: expected at least 0, got {self.gpus}; leave it out to let clients see what "
            "there is": self.gpus is None or self.gpus >= 0,
            f"clients-per-gpu: expected at least 1, got {self.clients_per_gpu}": (
                self.clients_per_gpu >= 1
            ),
        }
        mistakes = [text for text, holds in checks.items() if not holds]
        mistakes += self._gpu_mistakes()
        if mistakes:
            raise ConfigError(mistakes)

    def _gpu_mistakes(self) -> list[str]:
        """Return what cannot be met of the GPUs that were asked for."""
        asked, visible = self.gpus or 0, visible_gpus(os.environ)
        mistakes = []
        if visible is not None and asked > len(visible):
            mistakes.append(
                f"gpus: expected at most {len(visible)}, as many as are visible here, got {asked}; "
                "ask for fewer, or change CUDA_VISIBLE_DEVICES"
            )
        most = asked * self.clients_per_gpu
        if asked > 0 and self.workers is not None and self.workers > most > 0:
            mistakes.append(
                f"workers: expected at most {most}, gpus times clients-per-gpu, got "
                f"{self.workers}; raise clients-per-gpu, or leave workers out"
            )
        return mistakes

    @property
    def num_gpus(self) -> int:
        """How many GPUs the workers share: all that are visible, if no number was asked for."""
        return len(visible_gpus(os.environ) or ()) if self.gpus is None else self.gpus

    @property
    def num_workers(self) -> int:
        """How many workers there will be; never more than nodes, which could not keep them busy."""
        if self.workers is not None:
            wanted = self.workers
        elif self.num_gpus:  # a CUDA context for each core would not fit
            wanted = self.num_gpus * self.clients_per_gpu
        else:
            wanted = cores_here()
        return min(wanted, self.nodes, _MOST_WORKERS)

    @property
    def can_fork(self) -> bool:
        """Whether workers may share one import: not where a GPU is in sight, as CUDA cannot."""
        return self.num_gpus == 0

    def federation(self) -> dict[str, int | float]:
        """Return them as the keys of ``flwr run --federation-config``.

        Examples
        --------
        >>> EngineOptions(nodes=3).federation()
        {'num-supernodes': 3, 'client-resources-num-cpus': 1}
        >>> EngineOptions(nodes=3, gpus=1, clients_per_gpu=4).federation()[
        ...     "client-resources-num-gpus"
        ... ]
        0.25
        """
        keys: dict[str, int | float] = {
            "num-supernodes": self.nodes,
            "client-resources-num-cpus": 1,  # Flower's own default of 2 halves what runs at a time
        }
        has_cluster = bool(os.environ.get("RAY_ADDRESS"))  # with resources of its own
        if self.workers is not None and not has_cluster:
            keys["init-args-num-cpus"] = self.workers
        if self.gpus:
            if not has_cluster:
                keys["init-args-num-gpus"] = self.gpus
            keys["client-resources-num-gpus"] = 1 / self.clients_per_gpu
        return keys

    def environment(self) -> dict[str, str]:
        """Return the environment of the workers: one thread for each, unless it is set."""
        return {**os.environ, **self.client_environment()}

    def client_environment(self) -> dict[str, str]:
        """Return what the workers' environment has beside, or instead of, this process's own."""
        own = {name: os.environ.get(name, "1") for name in _ONE_THREAD}
        own |= {name: os.environ[name] for name in PINNED_CPU if name in os.environ}
        return own | ({"CUDA_VISIBLE_DEVICES": ""} if self.gpus == 0 else {})


def cores_here() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus_here() -> int:
    """Return how many GPUs of NVIDIA this machine shows, without loading CUDA."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def visible_gpus(environment: Mapping[str, str]) -> list[str] | None:
    """Return the names of the GPUs that programs may use; None if that is not known.

    Parameters
    ----------
    environment : Mapping[str, str]
        Where ``CUDA_VISIBLE_DEVICES`` may name them. As CUDA does, the list ends at the first name
        that is negative.

    Examples
    --------
    >>> visible_gpus({"CUDA_VISIBLE_DEVICES": "5, 7"}), visible_gpus({"CUDA_VISIBLE_DEVICES": ""})
    (['5', '7'], [])
    >>> visible_gpus({"CUDA_VISIBLE_DEVICES": "0,-1,2"})
    ['0']
    """
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(number) for number in range(gpus_here())] or None
    names = (name.strip() for name in named.split(","))
    return list(takewhile(lambda name: name and not name.startswith("-"), names))


def worker_devices(
    gpus: int | None, workers: int, environment: Mapping[str, str] | None = None
) -> list[str]:
    """Return the ``CUDA_VISIBLE_DEVICES`` of each worker: one GPU each, in turn.

    Parameters
    ----------
    gpus : int | None
        GPUs to use; none, or 0, leaves the environment alone.
    workers : int
        How many workers there are.
    environment : Mapping[str, str] | None
        Where ``CUDA_VISIBLE_DEVICES`` may name the GPUs that there are.

    Examples
    --------
    >>> worker_devices(2, 4, {})
    ['0', '1', '0', '1']
    >>> worker_devices(2, 2, {"CUDA_VISIBLE_DEVICES": "5,7,9"})
    ['5', '7']
    >>> worker_devices(None, 2, {})
    []
    """
    if not gpus:
        return []
    visible = visible_gpus(environment or {}) or [str(number) for number in range(gpus)]
    devices = visible[:gpus]
    return [devices[index % len(devices)] for index in range(workers)]
