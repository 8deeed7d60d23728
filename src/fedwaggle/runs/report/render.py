"""From the folder of a run to its page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fedwaggle.errors import RunError
from fedwaggle.numbers import is_ordinary
from fedwaggle.runs.events import parse_line
from fedwaggle.runs.files import write_atomic
from fedwaggle.runs.lines import Lines
from fedwaggle.runs.listing.names import name_of
from fedwaggle.runs.paths import EVENTS, REPORT
from fedwaggle.runs.reading import resume_rounds
from fedwaggle.runs.record import is_being_written
from fedwaggle.runs.report.charts.cells import client_facts, columns
from fedwaggle.runs.report.charts.clients import STATES, client_figures
from fedwaggle.runs.report.charts.costs import cost_figures
from fedwaggle.runs.report.charts.fields import DrawnFields, drawn_fields, field_figures
from fedwaggle.runs.report.charts.figure import Figure
from fedwaggle.runs.report.charts.keyed import (
    evaluation_figures,
    keyed_figures,
    partition_figures,
)
from fedwaggle.runs.report.charts.models import model_figures
from fedwaggle.runs.report.page import build_page
from fedwaggle.runs.report.story import RunStory, tell
from fedwaggle.runs.report.summary import changed_rows, config_rows, facts, notes, status, tiles
from fedwaggle.runs.report.tables import tables
from fedwaggle.runs.request import Request, read_request
from fedwaggle.text import printable

__all__ = [
    "Section",
    "footer",
    "paired",
    "read_story",
    "render",
    "write_page",
    "write_report",
]


@dataclass(frozen=True)
class Section:
    """A heading and its figures."""

    title: str
    figures: Sequence[Figure]


def paired(figures: Sequence[Figure]) -> list[Figure]:
    """Return the figures with those made wide that would stand alone in a row of two."""
    placed: list[Figure] = []
    for figure in figures:
        if figure.wide and _open_row(placed):
            placed[-1] = replace(placed[-1], wide=True)
        placed.append(figure)
    if _open_row(placed):
        placed[-1] = replace(placed[-1], wide=True)
    return placed


def _open_row(placed: Sequence[Figure]) -> bool:
    narrow = 0
    for figure in placed:
        narrow = 0 if figure.wide else narrow + 1
    return narrow % 2 == 1


def write_report(run: Path, output: Path | None = None) -> Path:
    """Draw the report of a run, whatever state it is in.

    Parameters
    ----------
    run : Path
        The folder of the run.
    output : Path | None
        Where to write; ``report.html`` in the folder if None.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    RunError
        If the run has no events that can be read, or the file cannot be written.
    """
    output = output or run / REPORT
    write_page(output, render(run))
    return output


def write_page(output: Path, page: str) -> None:
    """Write a page.

    Raises
    ------
    RunError
        If the file cannot be written.
    """
    try:
        write_atomic(output, page.encode())
    except OSError as error:
        raise RunError(
            f"{output}: the report cannot be written ({error.strerror}); name another file"
        ) from error


def read_story(run: Path) -> RunStory:
    """Return the story of the run in a folder.

    Raises
    ------
    RunError
        If it has no events that can be read.
    """
    lines = Lines(run / EVENTS)
    resumes = resume_rounds(lines.read(bytes))
    # The run may go on: what it writes from here on is of the next report.
    size, lines = lines.offset, Lines(run / EVENTS)
    story = tell(lines.read(parse_line, until=size), resumes)
    return replace(story, damaged_lines=lines.damaged)


def _request_of(run: Path) -> Request | None:
    """Return what was asked of the run, if its folder has it in a form that can be read."""
    try:
        return read_request(run)
    except RunError:
        return None  # the report shows what the events hold, and that is enough


def render(run: Path, *, now: datetime | None = None, live: dict[str, Any] | None = None) -> str:
    """Return the report of a run as HTML.

    Parameters
    ----------
    run : Path
        The folder of the run.
    now : datetime | None
        The time that the page states it was drawn at; the present if None.
    live : dict[str, Any] | None
        For a page that asks its server for news: ``version`` of the record, and every how many
        ``seconds`` to ask.

    Raises
    ------
    RunError
        If the run has no events that can be read.
    """
    now = now or datetime.now(UTC)
    story = read_story(run)
    clients = client_facts(story)
    fields = drawn_fields(story)
    cells = columns(story, clients, fields.numbers, fields.booleans, fields.histories)
    model = model_figures(story)
    lead = replace(model[0], wide=True) if model else None
    sections = [
        Section("Model", paired(model[1:])),
        Section("Clients", paired(client_figures(story, clients, fields))),
        Section(
            "Fairness and data", paired([*evaluation_figures(story), *partition_figures(story)])
        ),
        Section(
            "What clients report besides",
            paired([*field_figures(story, fields), *keyed_figures(story)]),
        ),
        Section("Time and traffic", paired(cost_figures(story))),
    ]
    rounds = [min(story.rounds, default=0), max(story.rounds, default=0)]
    seen = {cell.state for cell in story.cells}
    states = [(state, word, color) for state, (word, color) in STATES.items() if state in seen]
    data = {
        "rounds": rounds,
        "cells": cells.data,
        "drawn": cells.drawn,
        "total_examples": _total(client.num_examples for client in clients),
        "states": [{"code": s.code, "word": word, "color": color} for s, word, color in states],
        "figures": [
            *([lead.payload()] if lead else []),
            *(figure.payload() for section in sections for figure in section.figures),
        ],
        "live": live,
    }
    folder = printable(run.resolve().name, 100)
    name = printable(name_of(run.resolve().name), 100)
    return build_page(
        "report.html",
        title=f"{name} · Waggle",
        data=data,
        name=name,
        subtitle=_subtitle(story, folder),
        lead=lead,
        changed=changed_rows(story),
        status=status(story, is_live=is_being_written(run)),
        tiles=tiles(story),
        facts=facts(story, _request_of(run)),
        notes=notes(story, _left_out(fields, complete=cells.complete)),
        rounds=rounds,
        sections=sections,
        states=[{"word": word, "css": color[1:]} for _, word, color in states],
        tables=tables(story, clients),
        config=config_rows(story),
        footer=footer(now),
    )


def _total(counts: Iterable[float | None]) -> float:
    return math.fsum(count for count in counts if count is not None and is_ordinary(count))


def _subtitle(story: RunStory, folder: str) -> str:
    if not (begun := story.started):
        return f"{folder}: the run has not begun."
    strategy = printable(begun.strategy, 60)
    return f"{folder} · {strategy}, started {begun.time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _left_out(fields: DrawnFields, *, complete: bool) -> list[str]:
    found = []
    if fields.left_out:
        found.append(
            f"{fields.left_out} metadata fields have no picture here: the most common are drawn."
        )
    if not complete:
        found.append(
            "The run is too large for one page to hold every client: lines of single clients are "
            "there for those with refused or missing replies, and for slow ones. All other "
            "figures are of all clients."
        )
    return found


def footer(now: datetime) -> str:
    """Return the last line of a page: when it was drawn, and by which version."""
    try:
        release = version("fedwaggle")
    except PackageNotFoundError:
        release = ""  # run from a source tree that is not installed
    return f"Drawn {now:%Y-%m-%d %H:%M:%S} UTC by fedwaggle {release} from events.jsonl."
