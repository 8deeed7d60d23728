"""Tasks of a Ray cluster as an executor: any number of machines.

The app's folder travels to each machine; this library has to be installed there. A task that was
lost with its process or its machine is reported as such, and Ray does not repeat it: the engine
does, so that its random numbers and its node's state are the same.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

__all__ = ["RayExecutor"]

_LEFT_BEHIND = ["outputs", "wandb", "**/__pycache__", ".venv"]


class RayExecutor(Executor):
    """Runs functions as tasks of Ray, each on one CPU.

    Parameters
    ----------
    address : str | None
        The cluster; None takes that of ``RAY_ADDRESS``, or starts Ray on this machine.
    workers : int
        How many tasks at a time, where Ray is started here; a cluster has its own number.
    folder : Path
        What travels to each machine, and is the working folder there.
    environment : Mapping[str, str]
        Variables of the processes.
    """

    def __init__(
        self, address: str | None, workers: int, folder: Path, environment: Mapping[str, str]
    ) -> None:
        has_cluster = address is not None or bool(os.environ.get("RAY_ADDRESS"))
        ray.init(
            address=address,
            num_cpus=None if has_cluster else workers,
            runtime_env={
                "working_dir": str(folder),
                "excludes": _LEFT_BEHIND,
                "env_vars": dict(environment),
            },
            include_dashboard=None if has_cluster else False,
            logging_level=logging.WARNING,
        )
        self._task = ray.remote(num_cpus=1, max_retries=0)(_call)

    def submit(
        self,
        function: Callable[..., Any],
        /,
        *arguments: Any,  # noqa: ANN401  # whatever the function takes
        **named: Any,  # noqa: ANN401
    ) -> Future[Any]:
        """Run a function as a task."""
        future = _RayFuture()
        self._task.remote(function, arguments, named).future().add_done_callback(future.take)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster, or end the Ray that was started here."""
        ray.shutdown()


class _RayFuture(Future[Any]):
    """The result of a task. It cannot be cancelled: Ray does not say whether it has begun."""

    def cancel(self) -> bool:
        """Return False."""
        return False

    def take(self, done: Future[Any]) -> None:
        """Take the result over; what was lost on the way is a broken executor."""
        error = done.exception()
        if error is None:
            self.set_result(done.result())
        elif isinstance(error, RayTaskError):
            self.set_exception(error.cause)
        elif isinstance(error, RayError):
            self.set_exception(BrokenExecutor(f"{type(error).__name__}: {error}"))
        else:
            self.set_exception(error)


def _call(function: Callable[..., Any], arguments: Any, named: Any) -> Any:  # noqa: ANN401
    return function(*arguments, **named)
