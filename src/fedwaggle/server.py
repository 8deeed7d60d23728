"""What a server app calls beside its strategy: the folder of its run, and the first model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from fedwaggle.config import RunConfig
from fedwaggle.data import fingerprint
from fedwaggle.data.loading import count_labels
from fedwaggle.runs import Request, Run, open_folder, outputs_root
from fedwaggle.runs.request import installed_versions, machine_facts
from fedwaggle.seeds import derive_seed, seed_everything
from fedwaggle.site.code import code_hash, package_folder, source_hashes
from fedwaggle.strategy import engine_name
from fedwaggle.trackers import open_trackers

if TYPE_CHECKING:
    from flwr.app import Context
    from flwr.serverapp import Grid

    from fedwaggle.data import Examples
    from fedwaggle.data.loading import LoadData

__all__ = ["initial_model", "open_run"]

logger = logging.getLogger("flwr.fedwaggle.server")  # below Flower's, so that its log shows it

M = TypeVar("M")


def open_run(
    config: RunConfig,
    context: Context,
    grid: Grid,
    *,
    package: str | None = None,
    test_set: Examples | None = None,
    load_data: LoadData | None = None,
) -> Run:
    """Open the folder of a new run, or of the one that the config resumes, and its trackers.

    Parameters
    ----------
    config : RunConfig
        ``outputs``, ``run-name``, ``resume``, ``fork``, ``tracker`` and ``seed`` are read.
    context : Context
        The server's context; its run config is recorded.
    grid : Grid
        The server's grid; the record names its engine.
    package : str | None (default: None)
        The app's package, ``__package__``: the hashes of its files are recorded, and a run that
        is resumed with other code warns. None records none.
    test_set : Examples | None (default: None)
        The data that the server tests on; a run is not resumed with other data. None records none.
    load_data : Callable[[str, Context], Any] | None (default: None)
        What :func:`fedwaggle.load_examples` calls. With it, the run records how many examples of
        each class a client has, before it trains: a simulation counts them, and real nodes are
        asked, who answer if the client app gave ``load_data`` to
        :func:`fedwaggle.answer_identity`.

    Returns
    -------
    Run
        A context manager: an exception that leaves the block is recorded as the run's end.

    Raises
    ------
    RunError
        If the folder cannot be made, or the run that is to be resumed is not there, is being
        written, or was asked something else; see :func:`fedwaggle.runs.open_folder`.
    """
    folder = package_folder(package) if package else None
    request = Request(
        config=dict(context.run_config),
        app=(package or "").partition(".")[0],
        seed=config.seed,
        engine=engine_name(grid),
        versions=installed_versions(),
        machine=machine_facts(),
        code=code_hash(folder) if folder else "",
        sources=source_hashes(folder) if folder else {},
        dataset=fingerprint(test_set) if test_set is not None else "",
    )
    run = open_folder(
        outputs_root(config.outputs),
        name=config.run_name,
        request=request,
        resume=config.resume,
        fork=config.fork,
    )
    logger.info("run folder: %s", run.path)
    if load_data is not None:
        run.count_labels = partial(_count_labels, load_data, context, config)
    run.attach(open_trackers(config.trackers, run.path, project=config.wandb_project))
    return run


def initial_model(make_model: Callable[[], M], seed: int) -> M:
    """Make the model of round 0; its weights are drawn by the seed.

    Parameters
    ----------
    make_model : Callable[[], Module]
        Makes the model.
    seed : int
        The seed of the run.
    """
    seed_everything(derive_seed(seed, "initial weights"))
    return make_model()


def _count_labels(
    load_data: LoadData, context: Context, config: RunConfig, nodes: int
) -> list[dict[str, int]]:
    """Count what each simulated node trains on; a split that cannot be divided is an error."""
    if config.fraction_evaluate:
        count_labels(load_data, "test", context, nodes)
    return count_labels(load_data, "train", context, nodes)
