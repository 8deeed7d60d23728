"""CSV: three tables in the folder ``csv`` of a run, for a spreadsheet or any other program.

::

    rounds.csv      round, name, value              a row for each number of a round
    clients.csv     round, client, field, value     a row for each field of a client's update
    happenings.csv  time, round, what, client, text decisions, quarantines, best models, the end

A run that is resumed is written anew and whole.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from fedwaggle.runs.events import ClientUpdated, Event
from fedwaggle.text import printable
from fedwaggle.trackers.happenings import happening
from fedwaggle.trackers.round_metrics import RoundFacts, Rounds, update_fields

__all__ = ["CsvTracker", "open_tracker"]

_HEADINGS = {
    "rounds.csv": ("round", "name", "value"),
    "clients.csv": ("round", "client", "field", "value"),
    "happenings.csv": ("time", "round", "what", "client", "text"),
}


def open_tracker(run_path: Path, project: str, warn: Callable[[str], None]) -> CsvTracker:
    """Start writing into the folder ``csv`` of a run folder.

    Parameters
    ----------
    run_path : Path
        The run's folder.
    project : str
        Not used: the tables are part of the run.
    warn : Callable[[str], None]
        Not used: there is nothing to warn of.

    Raises
    ------
    OSError
        If nothing can be written there.
    """
    folder = run_path / "csv"
    folder.mkdir(exist_ok=True)
    return CsvTracker(folder)


class CsvTracker:
    """Writes a run as tables; each row is on disk when its event has been recorded.

    Parameters
    ----------
    folder : Path
        Where to; files of these names are replaced.
    """

    def __init__(self, folder: Path) -> None:
        self._files: list[TextIO] = []
        self._rounds, self._clients, self._happenings = (
            _Table(self._open(folder / name), heading) for name, heading in _HEADINGS.items()
        )
        self._seen = Rounds()

    def record(self, event: Event) -> None:
        """Write an event."""
        if isinstance(event, ClientUpdated):
            self._write_update(event)
        facts = self._seen.see(event)
        if facts is not None:
            self._write_round(facts)
        if said := happening(event):
            self._happenings.add(
                event.time.isoformat(), said.round, said.what, said.client, said.text
            )
        for file in self._files:
            file.flush()

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    def _open(self, path: Path) -> TextIO:
        file = path.open("w", newline="", encoding="utf-8")
        self._files.append(file)
        return file

    def _write_update(self, update: ClientUpdated) -> None:
        client = printable(update.client, 100)
        for name, value in update_fields(update):
            if isinstance(value, list):
                for step, each in enumerate(value, start=1):
                    self._clients.add(update.round, client, printable(f"{name}[{step}]", 100), each)
            else:
                self._clients.add(update.round, client, printable(name, 100), value)

    def _write_round(self, facts: RoundFacts) -> None:
        for name, value in facts.scalars.items():
            if not name.startswith("client/"):  # they have a table of their own
                self._rounds.add(facts.round, name, value)


class _Table:
    """A file of rows under a heading."""

    def __init__(self, file: TextIO, heading: tuple[str, ...]) -> None:
        self._writer = csv.writer(file)
        self._writer.writerow(heading)

    def add(self, *cells: object) -> None:
        """Write a row; a text that a spreadsheet would take for a formula is made a text."""
        self._writer.writerow(
            [
                f"'{cell}" if isinstance(cell, str) and cell[:1] in "=+-@" and cell else cell
                for cell in cells
            ]
        )
