"""Where a run begins: in a new folder, in the folder of the run that it goes on with, or in a fork.

Going on is refused when a config key changed that decides the model: the law is that a resumed
run ends as an uninterrupted one. A fork is a new run that begins at another's resume point, so
it may change what it likes.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from fedwaggle.errors import RunError
from fedwaggle.runs.checkpoints import BEST, BEST_FACTS
from fedwaggle.runs.events import RunResumed, UnknownEvent, current_events, read_events, to_line
from fedwaggle.runs.folder import EVENTS, Run, make_folder, read_request
from fedwaggle.runs.listing import find_run
from fedwaggle.runs.requests import Request, breaking_changes, changes
from fedwaggle.runs.snapshots import SNAPSHOTS, read_latest_snapshot

__all__ = ["open_run"]

logger = logging.getLogger("flwr.fedwaggle.runs")


def open_run(
    root: Path, *, name: str = "", request: Request, resume: str = "", fork: bool = False
) -> Run:
    """Open the folder that a run is to be written in.

    Parameters
    ----------
    root : Path
        The folder of all runs.
    name : str
        Name of a new run, for people.
    request : Request
        What is asked now.
    resume : str
        ``"latest"``, the name or the path of a run to go on with; empty for a new one.
    fork : bool
        Whether to make a new run from the resume point of ``resume``.

    Raises
    ------
    RunError
        If there is no such run, if another process is writing it, or if the config differs from
        the run's in a key that decides the model. The message names each key.
    """
    if not resume:
        return Run.create(root, name=name, request=request)
    path = find_run(resume, root)
    before = read_request(path)
    if fork:
        return _fork(path, root, name, before, request)
    broken = breaking_changes(before.config, request.config)
    if broken:
        lines = [f"  {key}: was {old!r}, is {new!r}" for key, (old, new) in broken.items()]
        raise RunError(
            f"{path} cannot go on with another config:\n"
            + "\n".join(lines)
            + "\nset these keys back, or make a new run from here with --fork (fork = true)"
        )
    if before.code and request.code and before.code != request.code:
        logger.warning("the app's code changed since %s began; its rounds may differ", path.name)
    return Run(path, before, resumed=changes(before.config, request.config))


def _fork(path: Path, root: Path, name: str, before: Request, request: Request) -> Run:
    """Copy a run up to its last resume point into a new folder, and open that."""
    snapshot = read_latest_snapshot(path)
    if snapshot is None:
        raise RunError(f"{path}: it has no resume point to fork from; begin a new run instead")
    forked = request.model_copy(update={"forked_from": path.name})
    new = make_folder(root, name, forked)
    shutil.copytree(path / SNAPSHOTS, new / SNAPSHOTS)
    for file in (BEST, BEST_FACTS):
        if (path / file).exists():
            shutil.copy2(path / file, new / file)
    (new / EVENTS).write_text("".join(_story(path, snapshot.server_round)))
    return Run(new, forked, resumed=changes(before.config, request.config), is_fork=True)


def _story(path: Path, server_round: int) -> list[str]:
    """Return the lines of a run's rounds up to ``server_round``."""
    marker = RunResumed(round=server_round, num_rounds=0, engine="", nodes=None)
    events = current_events([*read_events(path / EVENTS), marker])[:-1]
    return [
        to_line(event) + "\n"
        for event in events
        if not isinstance(event, UnknownEvent | RunResumed)
    ]
