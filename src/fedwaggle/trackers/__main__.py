"""The process of a tracker: events come in on standard input, a few words go out.

It answers ``"ready"`` once the tracker is open, or why it failed, and before that
``{"warning": ...}`` where the user should know of something; each as JSON on a line.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from importlib import import_module
from pathlib import Path

from fedwaggle.runs.events import UnknownEvent, parse_line
from fedwaggle.runs.sinks import Sink
from fedwaggle.runs.writer import EVENTS
from fedwaggle.text import printable
from fedwaggle.trackers.replay import CatchUp

ORPHAN_SECONDS = 60.0  # to finish in after the end; the run itself waits less


def main(name: str, run_path: str, project: str, past: str) -> int:
    """Show a run with one tracker, and return the exit code.

    Parameters
    ----------
    name : str
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
        tracker = import_module(f"fedwaggle.trackers.{name}")
        folder = Path(run_path)
        shown = tracker.open_tracker(folder, project, lambda words: answer({"warning": words}))
        sink = CatchUp(shown, folder / EVENTS, int(past))
        answer("ready")
        _show(sink)
    except Exception as error:  # noqa: BLE001  # of any kind: the run gives the warning
        answer(f"{type(error).__name__}: {printable(str(error))}")
        return 1
    return 0


def _show(sink: Sink) -> None:
    for line in sys.stdin:
        if line == "\n":
            break
        event = parse_line(line)
        if not isinstance(event, UnknownEvent):
            sink.record(event)
    # If the run was killed, nobody else ends a process that hangs in an upload.
    watchdog = threading.Timer(ORPHAN_SECONDS, os._exit, [1])
    watchdog.daemon = True
    watchdog.start()
    sink.close()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
