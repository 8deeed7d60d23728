"""Where a run begins: in a new folder, in that of the run that it resumes, or in a fork.

Going on is refused when the data changed, or a config key that decides the model: the law is
that a resumed run ends as an uninterrupted one. Other versions and other code are a warning. A
fork is a new run that begins at another's resume point, so it may change what it likes.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from fedwaggle.errors import RunError
from fedwaggle.runs.best_model import (
    BEST,
    holds_best,
    model_sha256,
    read_model,
    remove_best,
    save_best,
)
from fedwaggle.runs.checkpoints import (
    Snapshot,
    best_beside,
    read_latest_snapshot,
    write_snapshot,
)
from fedwaggle.runs.events import NotRepeatable, RunResumed, RunStarted, UnknownEvent, to_line
from fedwaggle.runs.listing import find_run
from fedwaggle.runs.paths import EVENTS
from fedwaggle.runs.reading import current_events, read_events
from fedwaggle.runs.request import Request, breaking_changes, changes, code_changes, read_request
from fedwaggle.runs.writer import Run, make_folder

__all__ = ["nodes_of", "open_folder"]

logger = logging.getLogger("flwr.fedwaggle.runs")


def open_folder(
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
        ``"latest"``, the name or the path of a run to resume; empty for a new one.
    fork : bool
        Whether to make a new run from the resume point of ``resume``.

    Raises
    ------
    RunError
        If there is no such run, if another process is writing it, if its folder cannot be
        written, or if the data or a key of the config that decides the model differ from the
        run's. The message names each.
    """
    if not resume:
        return Run.create(root, name=name, request=request)
    path = find_run(resume, root)
    before = read_request(path)
    if fork:
        return _fork(path, root, name, before, request)
    _refuse_another_request(path, before, request)
    _warn_of_changes(path, before, request)
    run = Run(path, before, resumed=changes(before.config, request.config))
    try:
        server_round = _go_back(path)
    except OSError as error:
        run.close()
        raise RunError(f"{path}: cannot be written ({error})") from error
    run.explain_not_repeatable(_causes(path, server_round))
    return run


def _refuse_another_request(path: Path, before: Request, request: Request) -> None:
    """Refuse what would make the run end with another model than an uninterrupted one."""
    broken = breaking_changes(before.config, request.config)
    if before.dataset and request.dataset and before.dataset != request.dataset:
        broken["the data (fingerprint)"] = [before.dataset, request.dataset]
    if broken:
        lines = [f"  {key}: was {old!r}, is {new!r}" for key, (old, new) in broken.items()]
        raise RunError(
            f"{path} cannot be resumed with another config or other data:\n"
            + "\n".join(lines)
            + "\nset these back, or make a new run from here with --fork (fork = true)"
        )


def _warn_of_changes(path: Path, before: Request, request: Request) -> None:
    """Warn of what may make the run's next rounds differ, and is not known to."""
    known = before.versions and request.versions
    moved = changes(before.versions, request.versions) if known else {}
    if moved:
        logger.warning(
            "other versions than when %s began: %s; its next rounds may differ",
            path.name,
            ", ".join(f"{p} {old or 'none'} -> {new or 'none'}" for p, (old, new) in moved.items()),
        )
    others = changes(before.machine, request.machine) if before.machine else {}
    others.pop("threads", None)  # of the server, which trains nothing
    if others:
        logger.warning(
            "another machine than when %s began: %s; the last digits of its next rounds may differ",
            path.name,
            ", ".join(
                f"{k} {old or 'unset'} -> {new or 'unset'}" for k, (old, new) in others.items()
            ),
        )
    if changed := code_changes(before, request):
        logger.warning(
            "the app's code changed since %s began: %s; its next rounds may differ",
            path.name,
            changed,
        )


def nodes_of(path: Path) -> int | None:
    """Return how many nodes a run had when it began or last went on, if that is known."""
    known = [
        event.nodes
        for event in read_events(path / EVENTS)
        if isinstance(event, RunStarted | RunResumed) and event.nodes is not None
    ]
    return known[-1] if known else None


def _fork(path: Path, root: Path, name: str, before: Request, request: Request) -> Run:
    """Copy a run up to its last resume point into a new folder, and open that."""
    snapshot = read_latest_snapshot(path)
    if snapshot is None:
        raise RunError(f"{path}: it has no resume point to fork from; begin a new run instead")
    causes = _causes(path, snapshot.server_round)
    forked = request.model_copy(update={"forked_from": path.name, "not_repeatable": causes})
    new, numbered = make_folder(root, name, forked)
    # What was read is written, and no file is copied: the run may go on meanwhile.
    write_snapshot(new, _put_best(snapshot, path, new))
    (new / EVENTS).write_text("".join(_story(path, snapshot.server_round)))
    return Run(new, numbered, resumed=changes(before.config, request.config), is_fork=True)


def _causes(path: Path, server_round: int) -> dict[str, str]:
    """Return why the rounds of a run up to ``server_round`` cannot be repeated, by cause."""
    events = current_events([*read_events(path / EVENTS), _marker(server_round)])
    return {event.cause: event.reason for event in events if isinstance(event, NotRepeatable)}


def _marker(server_round: int) -> RunResumed:
    """Return an event behind which nothing of the rounds after ``server_round`` counts."""
    return RunResumed(round=server_round, num_rounds=0, engine="", nodes=None)


def _go_back(path: Path) -> int:
    """Take a run's folder back to its last resume point, as far as the best model goes.

    Returns the round of that point; -1 if there is none.

    A process that ended between the two may have left the best model of a later round, which the
    run must not know when it goes on.
    """
    snapshot = read_latest_snapshot(path)
    if snapshot is None:
        logger.warning("%s: there is no resume point; it begins anew, at round 0", path)
        remove_best(path)
        return -1
    known = _put_best(snapshot, path, path)
    if known is not snapshot:
        write_snapshot(path, known)
    return snapshot.server_round


def _put_best(snapshot: Snapshot, source: Path, folder: Path) -> Snapshot:
    """Put the best model of a resume point in ``source`` into ``folder``.

    Returns the resume point; without a best model if that is nowhere to be found.
    """
    best = snapshot.best
    if best is None:
        remove_best(folder)
        return snapshot
    if holds_best(folder, best):
        return snapshot
    files = (best_beside(source, snapshot.server_round), source / BEST)
    for model in (snapshot.model, *map(read_model, files)):
        if model_sha256(model) == best.sha256:
            save_best(folder, model, best)
            return snapshot
    logger.warning(
        "%s: the best model (round %d) is lost; the next one counts as the best", source, best.round
    )
    remove_best(folder)
    return replace(snapshot, values={**snapshot.values, "best": None})


def _story(path: Path, server_round: int) -> list[str]:
    """Return the lines of a run's rounds up to ``server_round``."""
    events = current_events([*read_events(path / EVENTS), _marker(server_round)])[:-1]
    return [
        to_line(event) + "\n"
        for event in events
        if not isinstance(event, UnknownEvent | RunResumed)
    ]
