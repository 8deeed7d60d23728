"""The process of a tracker: it follows the record of a run, and answers on standard output.

The answers are JSON, one on a line: ``{"warning": ...}`` for what the user should know of, and why
it failed, if it did. A line on standard input, or its end, means that the record is complete.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from importlib import import_module
from pathlib import Path

from fedwaggle.runs.paths import EVENTS
from fedwaggle.runs.reading import follow
from fedwaggle.text import printable
from fedwaggle.trackers import Sink

ORPHAN_SECONDS = 60.0  # to finish in after the end; the run itself waits less


def main(module: str, run_path: str, project: str, past: str) -> int:
    """Show a run with one tracker, and return the exit code.

    Parameters
    ----------
    module : str
        The tracker's module.
    run_path : str
        The run's folder.
    project : str
        The project that the run is shown under.
    past : str
        How many bytes of ``events.jsonl`` were there before the run began, or went on.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the tracker's library prints goes to standard error

    def answer(words: object) -> None:
        print(json.dumps(words), file=answers, flush=True)

    try:
        tracker = import_module(module)
        folder = Path(run_path)
        sink = tracker.open_tracker(folder, project, lambda words: answer({"warning": words}))
        _show(sink, folder / EVENTS, int(past))
    except BaseException as error:  # noqa: BLE001  # of any kind: the run gives the warning
        answer(f"{type(error).__name__}: {printable(str(error))}")
        return 1
    return 0


def _show(sink: Sink, events: Path, past: int) -> None:
    is_over = threading.Event()

    def await_end() -> None:
        sys.stdin.readline()
        is_over.set()
        # If the run was killed, nobody else ends a process that hangs in an upload.
        watchdog = threading.Timer(ORPHAN_SECONDS, os._exit, [1])
        watchdog.daemon = True
        watchdog.start()

    threading.Thread(target=await_end, daemon=True).start()
    try:
        for event in follow(events, past=past, wait_for_end=is_over.wait):
            sink.record(event)
    finally:
        sink.close()  # also after an error: what it has so far is kept


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.exit(status)
