"""``simulate`` and ``run``: the local engine, from Python and from notebooks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedwaggle.engine import run as run_on_engine
from fedwaggle.engine.local.run import EngineResult, run_app
from fedwaggle.engine.options import DEFAULT_POOL, EngineOptions, PoolName
from fedwaggle.engine.resources import engine_options
from fedwaggle.errors import ConfigError
from fedwaggle.simulation.objects import app_of_objects
from fedwaggle.simulation.result import SimulationResult

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp

__all__ = ["run", "simulate"]


def simulate(
    server_app: ServerApp,
    client_app: ClientApp,
    num_supernodes: int = 10,
    backend_name: str | None = None,
    backend_config: Mapping[str, Any] | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    workers: int | None = None,
    gpus: int | None = None,
    clients_per_gpu: int | None = None,
    client_timeout: float | None = None,
    isolate: bool = False,
    seed: int | None = None,
    quiet: bool = False,
    verbose: bool = False,
    pool: PoolName = DEFAULT_POOL,
) -> SimulationResult:
    """Run a simulation of a ServerApp and a ClientApp on the local engine.

    It takes the parameters of Flower's ``run_simulation``. The apps may be defined in a notebook
    or in a script. The ServerApp runs in this process; the clients run in worker processes, so
    what a client changes in a global variable stays there. Runs that keep a record write it into
    ``outputs`` below the working folder, where ``waggle runs`` finds it.

    Parameters
    ----------
    server_app : ServerApp
        The server's app.
    client_app : ClientApp
        The clients' app.
    num_supernodes : int (default: 10)
        Number of simulated nodes.
    backend_name : str | None
        Taken for the sake of ``run_simulation``, and not used.
    backend_config : Mapping[str, Any] | None
        CPUs and GPUs of each client, as ``run_simulation`` takes them:
        ``{"client_resources": {"num_cpus": 1, "num_gpus": 0.25}}``.
    config : Mapping[str, bool | int | float | str] | None
        The run config, which apps read from ``context.run_config``.
    workers, gpus, clients_per_gpu, client_timeout, isolate, seed, quiet, verbose, pool
        See :func:`fedwaggle.engine.run`; they count before ``backend_config``.

    Returns
    -------
    SimulationResult
        What the server's main function returned, and the record of the run if it kept one.

    Raises
    ------
    ConfigError
        If an argument cannot be used. Every mistake is in it.
    EngineError
        If a run is already going on in this process, or the ClientApp cannot be imported.
    Exception
        What the ServerApp raised, as it is.

    Examples
    --------
    >>> result = simulate(server_app, client_app, 10)  # doctest: +SKIP
    >>> result.rounds_to_pandas()  # doctest: +SKIP
    """
    _check_apps(server_app, client_app)
    asked: dict[str, Any] = engine_options(backend_config or {})
    given = {"workers": workers, "gpus": gpus, "clients_per_gpu": clients_per_gpu}
    asked |= {key: value for key, value in given.items() if value is not None}
    options = EngineOptions(
        nodes=num_supernodes,
        client_timeout=client_timeout,
        isolate=isolate,
        seed=seed,
        quiet=quiet,
        verbose=verbose,
        pool=pool,
        **asked,
    )
    with _outputs_below_here(), app_of_objects(client_app, config or {}) as app:
        return _result(run_app(app, options, server_app))


def run(
    app: str | Path,
    *,
    num_supernodes: int = 10,
    config: Mapping[str, Any] | None = None,
    **options: Any,  # noqa: ANN401  # those of the engine
) -> SimulationResult:
    """Run an app folder on the local engine, as ``waggle run`` does.

    Parameters
    ----------
    app : str | Path
        The folder of a Flower app.
    num_supernodes : int (default: 10)
        Number of simulated nodes.
    config : Mapping[str, Any] | None
        Values of the run config to use in place of the app's own.
    **options
        See :func:`fedwaggle.engine.run`.

    Returns
    -------
    SimulationResult
        What the server's main function returned, and the record of the run if it kept one.

    Raises
    ------
    ConfigError, EngineError, Exception
        As :func:`simulate` does.

    Examples
    --------
    >>> result = run("quickstart", config={"num-server-rounds": 3})  # doctest: +SKIP
    >>> result.metrics["accuracy"]  # doctest: +SKIP
    0.571
    """
    with _outputs_below_here():
        return _result(run_on_engine(app, nodes=num_supernodes, config=config, **options))


def _check_apps(server_app: object, client_app: object) -> None:
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp

    mistakes = [
        f"{name}: expected a {kind.__name__}, got {type(app).__name__}; give the object that "
        f"`{kind.__name__}(...)` returned"
        for name, app, kind in (
            ("server_app", server_app, ServerApp),
            ("client_app", client_app, ClientApp),
        )
        if not isinstance(app, kind)
    ]
    if mistakes:
        raise ConfigError(mistakes)


def _result(done: EngineResult) -> SimulationResult:
    return SimulationResult(
        value=done.value,
        seconds=done.seconds,
        messages=done.messages,
        errors=done.errors,
        path=done.run_path,
    )


@contextmanager
def _outputs_below_here() -> Iterator[None]:
    """Let runs of the block write into ``outputs`` below the working folder."""
    before = os.environ.get("WAGGLE_OUTPUTS")
    if not before:
        os.environ["WAGGLE_OUTPUTS"] = str(Path("outputs").absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ["WAGGLE_OUTPUTS"]
        else:
            os.environ["WAGGLE_OUTPUTS"] = before
