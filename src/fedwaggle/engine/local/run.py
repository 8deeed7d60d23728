"""The local engine: any Flower app folder, unmodified, in this process and a pool of workers.

The ServerApp runs here, in the thread that calls :func:`run`. Its grid hands each message to a
worker process in which the ClientApp was imported once. While this process imports the
ServerApp, another imports the ClientApp.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fedwaggle.engine.app import App, read_app
from fedwaggle.engine.checks import check_both, refuse_mistakes
from fedwaggle.engine.local.seeding import SERVER, RandomNumbers
from fedwaggle.engine.options import DEFAULT_POOL, EngineOptions, PoolName, worker_devices
from fedwaggle.engine.screen import open_progress
from fedwaggle.engine.surroundings import (
    exit_on,
    importing,
    many_open_files,
    old_objects_at_rest,
)
from fedwaggle.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from flwr.serverapp import ServerApp

    from fedwaggle.engine.local.grid import LocalGrid
    from fedwaggle.engine.local.pool import Pool
    from fedwaggle.engine.screen import Progress

__all__ = ["EngineResult", "run", "run_app"]

_one_run = threading.Lock()  # Flower keeps who a process speaks for in a global


@dataclass(frozen=True)
class EngineResult:
    """What a run came to.

    Attributes
    ----------
    value : Any
        What the ServerApp's main function returned; Flower itself drops it.
    seconds : float
        Wall time, from the call of :func:`run` to its return.
    messages, errors : int
        Messages that were sent, and how many were answered by an error.
    run_path : Path | None
        The folder of the run's record, if the app keeps one.
    """

    value: Any
    seconds: float
    messages: int
    errors: int
    run_path: Path | None = None


def run(
    app: str | Path | App,
    *,
    nodes: int = 10,
    workers: int | None = None,
    config: Mapping[str, Any] | None = None,
    client_timeout: float | None = None,
    gpus: int | None = None,
    clients_per_gpu: int = 1,
    isolate: bool = False,
    seed: int | None = None,
    node_config: Mapping[str, bool | int | float | str] | None = None,
    quiet: bool = False,
    verbose: bool = False,
    pool: PoolName = DEFAULT_POOL,
    ray_address: str | None = None,
) -> EngineResult:
    """Run an unmodified Flower app: its ServerApp here, its ClientApp in worker processes.

    The app is imported from its folder, as ``flwr run`` does; the working folder stays yours,
    for the ServerApp and for the clients. One run at a time in a process.

    Parameters
    ----------
    app : str | Path | App
        The app's folder, or what :func:`~fedwaggle.engine.read_app` made of it.
    nodes : int
        How many nodes there are; partition ids count from 0. One that is not sampled costs
        nothing.
    workers : int | None
        Worker processes; one for each core if left out. 0 runs the clients in this process, one
        after the other, where a debugger reaches them.
    config : Mapping[str, Any] | None
        Values of the run config to use in place of the app's own.
    client_timeout : float | None
        Seconds that a client has for a message. One that takes longer is ended, and its node
        answers with an error.
    gpus : int | None
        GPUs to share out among the workers, one for each; 0 hides them; left out, all that are
        visible. With GPUs, there is one worker for each, or ``clients_per_gpu``.
    clients_per_gpu : int
        How many workers share a GPU.
    isolate : bool
        Whether each message gets a fresh process, as in a deployment. Slower; it finds apps
        that keep something in module globals.
    seed : int | None
        Makes random numbers repeatable that the app does not seed: those of Python, NumPy and
        torch, for the server and in each message. A client that seeds its generators itself has
        to do so in each message: what it seeds at import, the engine seeds anew.

        Left out, the generators are the app's own, as in Flower's simulation. What the app does
        not seed differs from run to run and from worker to worker. What it seeds at import, each
        worker begins with, and continues from message to message; so which numbers a client
        draws then depends on the worker that it comes to.
    node_config : Mapping[str, bool | int | float | str] | None
        What every node has in ``context.node_config``, beside its partition.
    quiet, verbose : bool
        Show no progress and no log below a warning; say also what happens to workers.
    pool : {"linux", "processes", "ray"}
        What runs the clients. ``"linux"``, the default there, is the fastest; ``"processes"``, the
        standard library's, works everywhere, and ``"ray"`` on a cluster. These two have no
        ``client_timeout``, ``isolate`` and ``gpus``.
    ray_address : str | None
        The Ray cluster; left out, that of ``RAY_ADDRESS``, or Ray is started on this machine.

    Returns
    -------
    EngineResult
        What the ServerApp's main function returned, and figures.

    Raises
    ------
    ConfigError
        If the folder, the config or an option cannot be used.
    EngineError
        If a run is already going on in this process, or the ClientApp cannot be imported.
    Exception
        What the ServerApp raised, as it is.

    Examples
    --------
    >>> result = run("quickstart", nodes=10, config={"num-server-rounds": 3})  # doctest: +SKIP
    >>> result.messages, result.errors  # doctest: +SKIP
    (30, 0)
    """
    began = time.perf_counter()
    options, asked = check_both(
        lambda: EngineOptions(
            nodes=nodes,
            workers=workers,
            client_timeout=client_timeout,
            gpus=gpus,
            clients_per_gpu=clients_per_gpu,
            isolate=isolate,
            seed=seed,
            node_config=node_config or {},
            quiet=quiet,
            verbose=verbose,
            pool=pool,
            ray_address=ray_address,
        ),
        lambda: _read(app, config, nodes),
    )
    result = run_app(asked, options)
    return replace(result, seconds=time.perf_counter() - began)


def run_app(app: App, options: EngineOptions, server_app: ServerApp | None = None) -> EngineResult:
    """Run an app that was read and checked; see :func:`run`.

    A ``server_app`` that is there already takes the place of the one that the app names.
    """
    began = time.perf_counter()
    if not _one_run.acquire(blocking=False):
        raise EngineError("a run is going on in this process; wait for its end, or use another")
    try:
        value, grid = _run(app, options, server_app)
    finally:
        _one_run.release()
    seconds = time.perf_counter() - began
    path = grid.recorded_run.path if grid.recorded_run else None
    return EngineResult(value, seconds, grid.messages, grid.errors, path)


def _read(app: str | Path | App, config: Mapping[str, Any] | None, nodes: int) -> App:
    if not isinstance(app, App):
        return read_app(app, config, nodes=nodes)
    if config:
        raise ConfigError(["config: expected none beside an App that was read; give it there"])
    refuse_mistakes(app.path, app.serverapp, app.config, nodes)
    return app


def _run(app: App, options: EngineOptions, server_app: ServerApp | None) -> tuple[Any, LocalGrid]:
    """Start the workers, import the ServerApp meanwhile, and call it."""
    run_id = secrets.randbits(63)
    with ExitStack() as stack:
        stack.enter_context(exit_on(signal.SIGTERM))
        stack.enter_context(many_open_files())
        progress = stack.enter_context(open_progress(app, options))
        pool = (
            _start_workers(app, options, run_id, progress, stack) if options.workers != 0 else None
        )
        stack.enter_context(importing(app))
        # These import Flower, which takes as long as the workers' own start.
        from flwr.app import Context, RecordDict

        flwr_private = _private_flower()
        from fedwaggle.engine.local.fast_arrays import fast_arrays
        from fedwaggle.engine.local.grid import LocalGrid

        stack.enter_context(flwr_private.task_identity(run_id, flwr_private.SERVER_NODE_ID))
        if options.seed is not None:
            stack.enter_context(RandomNumbers(options.seed)).seed_for(SERVER)
        if server_app is None:
            server_app = flwr_private.load_server_app(app.serverapp, str(app.import_path))
        stack.enter_context(fast_arrays())
        progress.attach_logs()
        pool = pool or _in_process(app, options, run_id, progress)
        grid = LocalGrid(pool, run_id=run_id, num_nodes=options.nodes, observer=progress)
        grid.set_run(flwr_private.describe_run(run_id, app.fab_id, app.version))
        context = Context(
            run_id=run_id,
            node_id=flwr_private.SERVER_NODE_ID,
            node_config={},
            state=RecordDict(),
            run_config=dict(app.config),
        )
        stack.enter_context(old_objects_at_rest())
        return flwr_private.call_server_app(server_app, grid, context), grid


def _start_workers(
    app: App, options: EngineOptions, run_id: int, progress: Progress, stack: ExitStack
) -> Pool:
    """Start worker processes, which import the ClientApp while this one imports Flower."""
    if options.pool != "linux":
        return stack.enter_context(_on_executor(app, options, run_id))
    # They use what only Linux has.
    from fedwaggle.engine.local.linux.pool import WorkerPool
    from fedwaggle.engine.local.linux.setup import Setup

    return stack.enter_context(
        WorkerPool(
            Setup(
                sys_path=sys.path,
                folder=str(app.import_path),
                clientapp=app.clientapp,
                run_id=run_id,
                num_nodes=options.nodes,
                node_config=options.node_config,
                run_config=app.config,
                server_pid=os.getpid(),
                seed=options.seed,
                workers=options.num_workers,
                first_slot=0,
                isolate=options.isolate,
                fork=options.can_fork,
                devices=worker_devices(options.num_gpus, options.num_workers, os.environ),
            ),
            environment=options.environment(),
            client_timeout=options.client_timeout,
            show_line=progress.client_line,
            report=progress.report,
        )
    )


def _executor(app: App, options: EngineOptions) -> Executor:
    if options.pool == "processes":
        from fedwaggle.engine.local.executor import process_executor

        return process_executor(options.num_workers, options.environment())
    from fedwaggle.engine.local.ray import RayExecutor

    return RayExecutor(
        options.ray_address, options.num_workers, app.import_path, options.client_environment()
    )


@contextmanager
def _on_executor(app: App, options: EngineOptions, run_id: int) -> Iterator[Pool]:
    """Run clients on processes of the standard library, or on a Ray cluster."""
    from fedwaggle.engine.local.executor import ExecutorPool, Work

    is_here = options.pool == "processes"  # and has the modules and the folder of this process
    work = Work(
        tuple(sys.path) if is_here else (),
        str(app.import_path) if is_here else "",
        app.clientapp,
        run_id,
        options.nodes,
        dict(options.node_config),
        dict(app.config),
        options.seed,
    )
    pool = ExecutorPool(lambda: _executor(app, options), work)
    try:
        yield pool
    except BaseException:
        pool.close()
        raise
    else:
        pool.close(in_order=True)


def _in_process(app: App, options: EngineOptions, run_id: int, progress: Progress) -> Pool:
    """Return a pool that runs clients in this process."""
    from fedwaggle.engine.flwr_private import load_client_app
    from fedwaggle.engine.local.client import Client
    from fedwaggle.engine.local.in_process import InProcessPool

    def show(partition: int, trace: str) -> None:
        progress.client_line(f"[client {partition}] {trace}", is_error=True)

    return InProcessPool(
        lambda: load_client_app(app.clientapp, str(app.import_path)),
        lambda client_app: Client(
            client_app, run_id, options.nodes, options.node_config, app.config, show
        ),
        options.seed,
    )


def _private_flower() -> ModuleType:
    """Return the module of Flower's private API; raise if this Flower has another one."""
    try:
        from fedwaggle.engine import flwr_private

        changed = flwr_private.changes()
    except (ImportError, AttributeError, TypeError) as error:
        changed = [str(error)]
    if changed:
        raise EngineError(
            f"flwr {version('flwr')}: the local engine does not fit this version "
            f"({'; '.join(changed)}); use --engine flower, or install a version that it was "
            "tried with, such as flwr==1.42"
        )
    return flwr_private
