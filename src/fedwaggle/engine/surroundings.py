"""What a run changes in the process that it runs in, each thing put back at its end."""

from __future__ import annotations

import gc
import resource
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from fedwaggle.engine.app import App

__all__ = ["exit_on", "importing", "many_open_files", "old_objects_at_rest"]


@contextmanager
def importing(app: App) -> Iterator[None]:
    """Import an app's modules from its folder, and forget them afterwards.

    Two apps may have modules of the same name, and a notebook runs an app again after an edit:
    a module from elsewhere that stands in the way steps aside until the end, and what was
    imported from the folder meanwhile is dropped.
    """
    path_before = list(sys.path)
    own = {reference.partition(":")[0].partition(".")[0] for reference in app.references}
    own |= {file.stem for file in app.import_path.glob("*.py")} - sys.stdlib_module_names
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
def old_objects_at_rest() -> Iterator[None]:
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
def exit_on(*signals: signal.Signals) -> Iterator[None]:
    """Turn signals into an exit, so that the app's and the engine's own clean-up runs.

    Only those for which the process has no handler of its own (``nohup`` ignores SIGHUP, and means
    it), and only in the main thread, where Python lets one be set.
    """
    is_main = threading.current_thread() is threading.main_thread()
    ours = [one for one in signals if is_main and signal.getsignal(one) is signal.SIG_DFL]

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for one in ours:
        signal.signal(one, leave)
    try:
        yield
    finally:
        for one in ours:
            signal.signal(one, signal.SIG_DFL)


@contextmanager
def many_open_files() -> Iterator[None]:
    """Let this process open as many files as the system allows it: messages lie in such files.

    The usual limit, 1,024, is kept so low for programs of another kind than this.
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
