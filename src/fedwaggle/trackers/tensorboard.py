"""TensorBoard: event files in the folder ``tensorboard`` of a run.

A run that is resumed is written anew and whole. TensorBoard reads every file with ``tfevents``
in its name, so the files of earlier attempts are renamed.

It uses TensorBoard's own writer, and neither TensorFlow nor torch.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event as FileEvent
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from fedwaggle.runs.events import Event, RoundStarted
from fedwaggle.text import printable
from fedwaggle.trackers.happenings import happening
from fedwaggle.trackers.round_metrics import RoundFacts, Rounds

__all__ = ["TensorBoardTracker", "open_tracker"]

_FILED_UNDER = {
    "started": "run/started",
    "resumed": "run/resumed",
    "finished": "run/finished",
    "failed": "run/failed",
    "decision": "decisions",
    "quarantine": "quarantines",
    "best-model": "best model",
}

FLUSH_SECONDS = 5  # TensorBoard's own reading interval is 5 s, too


def open_tracker(run_path: Path, project: str, warn: Callable[[str], None]) -> TensorBoardTracker:
    """Start writing into the folder ``tensorboard`` of a run folder.

    Parameters
    ----------
    run_path : Path
        The run's folder.
    project : str
        Not used: TensorBoard groups runs by their folders.
    warn : Callable[[str], None]
        Not used: there is nothing to warn of.

    Raises
    ------
    OSError
        If nothing can be written there.
    """
    folder = run_path / "tensorboard"
    folder.mkdir(exist_ok=True)
    for file in sorted(folder.glob("*tfevents*")):
        file.rename(file.with_name(file.name.replace("tfevents", "superseded")))
    return TensorBoardTracker(EventFileWriter(str(folder), flush_secs=FLUSH_SECONDS))


class TensorBoardTracker:
    """Shows a run in TensorBoard: numbers and histograms by round, and what happened as text.

    Parameters
    ----------
    writer : EventFileWriter
        TensorBoard's writer.
    """

    def __init__(self, writer: EventFileWriter) -> None:
        self._writer = writer
        self._rounds = Rounds()
        self._round = 0

    def record(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, RoundStarted):
            self._round = event.round
        facts = self._rounds.see(event)
        if facts is not None:
            self._show_round(facts)
        said = happening(event)
        if said is not None:
            # TensorBoard shows text as Markdown, so what somebody else wrote is set as code.
            text = f"{said.client}: {said.text}" if said.client else said.text
            step = said.round if said.round >= 0 else self._round
            self._add(text_pb(_FILED_UNDER[said.what], _code(text)), step, event.time)

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._writer.close()

    def _show_round(self, facts: RoundFacts) -> None:
        for name, value in facts.scalars.items():
            self._add(scalar_pb(name, value), facts.round, facts.time)
        for name, values in facts.samples.items():
            self._add(histogram_pb(name, values), facts.round, facts.time)

    def _add(self, summary: Summary, step: int, time: datetime) -> None:
        self._writer.add_event(FileEvent(wall_time=time.timestamp(), step=step, summary=summary))


def _code(text: str) -> str:
    return f"`{printable(text).replace('`', chr(39))}`"
