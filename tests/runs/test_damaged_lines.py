"""No damaged line locks a record: every reader skips it, with one warning, and reads the rest."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from rich.console import Console

from fedwaggle.runs import lines, load
from fedwaggle.runs.events import to_line
from fedwaggle.runs.listing import list_runs
from fedwaggle.runs.reading import current_events, follow, read_events
from fedwaggle.runs.report import read_story, write_report
from fedwaggle.runs.report.comparing import write_comparison
from fedwaggle.runs.terminal.screen import frame
from fedwaggle.runs.terminal.watch import Tail
from runs.report_data import Federation, run_events, write_run

EVENTS = run_events(Federation(rounds=3, clients=4, fraction=1.0, trouble=0.0))
UPDATE = next(i for i, event in enumerate(EVENTS) if event.event == "client-updated")
WHOLE = to_line(EVENTS[UPDATE]).encode()

DAMAGES = {
    "a flipped bit": WHOLE.replace(b'{"v"', b'{"v\xa2'),
    "torn": WHOLE[:40],
    "zeros": b"\0" * 4096,
    "no UTF-8": WHOLE.replace(b"client-updated", b"client-up\xffated"),
    "a line end within": WHOLE[:40] + b"\r" + WHOLE[40:],
    "too deep": b'{"a":' * 100_000,
    "huge": b'{"a": "' + b"x" * 3000 + b'"}',
    "no object": b"17",
    "nothing": b"",
}


@pytest.fixture
def damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run in which one update was replaced by a damaged line, 9 in all."""
    monkeypatch.setattr(lines, "MOST_LINE_BYTES", 2000)
    run = write_run(tmp_path / "a-run", EVENTS)
    told = (run / "events.jsonl").read_bytes().splitlines()
    told[UPDATE : UPDATE + 1] = DAMAGES.values()
    (run / "events.jsonl").write_bytes(b"\n".join(told) + b"\n")
    return run


def test_every_reader_skips_damaged_lines_and_reads_all_others(damaged: Path) -> None:
    kept = [*EVENTS[:UPDATE], *EVENTS[UPDATE + 1 :]]
    assert list(read_events(damaged / "events.jsonl")) == kept
    record = load(damaged)
    assert (record.status, record.rounds_done, record.damaged_lines) == ("finished", 3, 9)
    assert sum(len(each.updates) for each in record.rounds) == 11
    assert Tail(damaged).record() == record
    console = Console(width=120)
    with console.capture() as shown:
        console.print(frame(record, 120))
    assert "damaged lines skipped: 9" in shown.get()
    (listed,) = list_runs(damaged.parent)
    assert (listed.status, listed.rounds) == ("finished", 3)
    story = read_story(damaged)
    assert (len(story.finished_rounds), story.damaged_lines) == (4, 9)
    page = write_report(damaged).read_text()
    assert "Damaged lines of events.jsonl, which are left out: 9." in page
    other = write_run(damaged.parent / "b-run", EVENTS)
    assert write_comparison([damaged, other], damaged / "comparison.html").exists()
    events = damaged / "events.jsonl"
    followed = list(follow(events, past=events.stat().st_size, wait_for_end=lambda seconds: True))
    assert followed == current_events(kept)


def test_a_file_is_warned_of_once_however_often_it_is_read(
    damaged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        load(damaged)
        write_report(damaged)
        list_runs(damaged.parent)
        tail = Tail(damaged)
        tail.record()
        tail.record()
    (warning,) = caplog.messages
    assert f"{damaged / 'events.jsonl'}: 9 damaged lines are skipped" in warning
    assert f"line {UPDATE + 1}" in warning


def test_a_line_is_read_once_it_is_whole(tmp_path: Path) -> None:
    """Half a line at the end is not damaged: it is still being written."""
    file = tmp_path / "events.jsonl"
    file.write_bytes(b'{"n": 1}\n{"n"')
    growing = lines.Lines(file)
    assert list(growing.read(bytes)) == [b'{"n": 1}\n']
    with file.open("ab") as end:
        end.write(b": 2}\n")
    assert list(growing.read(bytes)) == [b'{"n": 2}\n']
    assert (list(growing.read(bytes)), growing.damaged) == ([], 0)
