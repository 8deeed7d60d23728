"""The local engine: any Flower app folder, unmodified, in this process and a pool of workers.

The ServerApp runs here, in the thread that calls :func:`run`. Its grid hands each message to a
worker process in which the ClientApp was imported once. While this process imports the
ServerApp, another imports the ClientApp.
"""

from __future__ import annotations

import gc
import os
import random
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from fedwaggle.engine.app import App, read_app
from fedwaggle.engine.options import EngineOptions, worker_devices
from fedwaggle.engine.pool import Pool
from fedwaggle.engine.progress import Progress, open_progress
from fedwaggle.engine.setup import Setup
from fedwaggle.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from fedwaggle.engine.grid import LocalGrid

__all__ = ["EngineResult", "run"]

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
    """

    value: Any
    seconds: float
    messages: int
    errors: int


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
    quiet: bool = False,
    verbose: bool = False,
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
        Worker processes; one for each core if left out.
    config : Mapping[str, Any] | None
        Values of the run config to use in place of the app's own.
    client_timeout : float | None
        Seconds that a client has for a message. One that takes longer is ended, and its node
        answers with an error.
    gpus : int | None
        GPUs to share out among the workers, one for each; 0 hides them; left out, each worker
        sees all that there are.
    clients_per_gpu : int
        How many workers share a GPU.
    isolate : bool
        Whether each message gets a fresh process, as in a deployment. Slower; it finds apps
        that keep something in module globals.
    seed : int | None
        Makes random numbers repeatable which neither the app nor its libraries seed: Python's,
        NumPy's and torch's, here and in each message. Left out, they differ from run to run.
    quiet, verbose : bool
        Show no progress and no log below a warning; say also what happens to workers.

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
    options = EngineOptions(
        nodes=nodes,
        workers=workers,
        client_timeout=client_timeout,
        gpus=gpus,
        clients_per_gpu=clients_per_gpu,
        isolate=isolate,
        seed=seed,
        quiet=quiet,
        verbose=verbose,
    )
    app = _read(app, config)
    if sys.platform != "linux":
        raise EngineError(
            f"the local engine needs Linux, got {sys.platform}; run the app with `flwr run`"
        )
    if not _one_run.acquire(blocking=False):
        raise EngineError("a run is going on in this process; wait for its end, or use another")
    try:
        value, grid = _run(app, options)
    finally:
        _one_run.release()
    return EngineResult(value, time.perf_counter() - began, grid.messages, grid.errors)


def _read(app: str | Path | App, config: Mapping[str, Any] | None) -> App:
    if not isinstance(app, App):
        return read_app(app, config)
    if config:
        raise ConfigError(["config: expected none beside an App that was read; give it there"])
    return app


def _run(app: App, options: EngineOptions) -> tuple[Any, LocalGrid]:
    """Start the workers, import the ServerApp meanwhile, and call it."""
    run_id = secrets.randbits(63)
    with ExitStack() as stack:
        stack.enter_context(_exit_on_sigterm())
        progress = stack.enter_context(open_progress(app.config, options.quiet, options.verbose))
        pool = _start_pool(app, options, run_id, progress)
        stack.callback(pool.close)
        stack.enter_context(_importing(app))
        # These import Flower, which takes as long as the workers' own start.
        from flwr.app import Context, RecordDict

        from fedwaggle.engine import flower_api
        from fedwaggle.engine.fast_arrays import fast_arrays
        from fedwaggle.engine.grid import LocalGrid

        stack.enter_context(flower_api.task_identity(run_id, flower_api.SERVER_NODE_ID))
        if options.seed is not None:
            random.seed(options.seed)
        server_app = flower_api.load_server_app(app.serverapp, str(app.path))
        stack.enter_context(fast_arrays())
        progress.attach_logs()
        grid = LocalGrid(pool, run_id=run_id, num_nodes=options.nodes, observer=progress)
        context = Context(
            run_id=run_id,
            node_id=flower_api.SERVER_NODE_ID,
            node_config={},
            state=RecordDict(),
            run_config=dict(app.config),
        )
        stack.enter_context(_old_objects_at_rest())
        return flower_api.call_server_app(server_app, grid, context), grid


def _start_pool(app: App, options: EngineOptions, run_id: int, progress: Progress) -> Pool:
    environment = options.environment()
    workers = options.num_workers
    setup = Setup(
        sys_path=sys.path,
        folder=str(app.path),
        clientapp=app.clientapp,
        run_id=run_id,
        num_nodes=options.nodes,
        run_config=app.config,
        server_pid=os.getpid(),
        seed=secrets.randbits(63) if options.seed is None else options.seed,
        workers=workers,
        first_slot=0,
        isolate=options.isolate,
        fork=options.can_fork,
        devices=worker_devices(options.gpus, workers, environment),
        board=-1,
        tokens_out=-1,
        tokens_in=-1,
        replies=-1,
        output=-1,
    )
    return Pool(
        setup,
        environment=environment,
        client_timeout=options.client_timeout,
        show_line=progress.client_line,
        report=progress.report,
    )


@contextmanager
def _importing(app: App) -> Iterator[None]:
    """Import an app's modules from its folder, and forget them afterwards.

    Two apps may have modules of the same name, and a notebook runs an app again after an edit:
    a module from elsewhere that stands in the way steps aside until the end, and what was
    imported from the folder meanwhile is dropped.
    """
    path_before = list(sys.path)
    own = {reference.partition(":")[0].partition(".")[0] for reference in app.references}
    own |= {file.stem for file in app.path.glob("*.py")} - sys.stdlib_module_names
    aside = {
        name: module
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in own and not _lies_in(module, app.path)
    }
    for name in aside:
        del sys.modules[name]
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if _lies_in(sys.modules[name], app.path):
                del sys.modules[name]
        sys.modules.update(aside)
        sys.path[:] = path_before


def _lies_in(module: object, folder: Path) -> bool:
    """Whether a module's file lies in a folder; a package without a file has a path."""
    path = getattr(module, "__path__", ())  # torch has modules that answer to any name
    places = [getattr(module, "__file__", None), *(path if isinstance(path, Iterable) else ())]
    return any(isinstance(place, str) and Path(place).is_relative_to(folder) for place in places)


@contextmanager
def _old_objects_at_rest() -> Iterator[None]:
    """Keep the garbage collector to what the run makes: searching all that is imported is slow."""
    if gc.get_freeze_count():  # the caller has plans of its own
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Turn a ``kill`` into an exit, so that the app's and the engine's own clean-up runs.

    Only where the process has no handler of its own, and in the main thread, where Python lets
    one be set.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
