"""Laws of the event vocabulary."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest

from fedwaggle.runs import events as vocabulary
from fedwaggle.runs.events import (
    ClientUpdated,
    RoundFinished,
    RunFailed,
    RunResumed,
    UnknownEvent,
    parse_line,
    to_line,
)
from fedwaggle.runs.reading import current_events, read_events

KINDS = get_args(get_args(vocabulary.Event)[0])


def round_finished(server_round: int, **changes: object) -> RoundFinished:
    return RoundFinished(round=server_round, seconds=1.0, **changes)


def test_every_kind_has_its_own_name_and_every_field_a_description() -> None:
    names = [kind.model_fields["event"].default for kind in KINDS]
    assert len(set(names)) == len(names) == 15
    for kind in KINDS:
        for name, field in kind.model_fields.items():
            assert field.description or name == "event", f"{kind.__name__}.{name}"


def test_an_event_comes_back_equal_with_numbers_that_json_lacks() -> None:
    event = round_finished(1, metrics={"loss": float("inf"), "parts": [0.5, 1]})
    assert parse_line(to_line(event)) == event
    nan = parse_line(to_line(round_finished(1, metrics={"loss": float("nan")})))
    assert nan.metrics["loss"] != nan.metrics["loss"]


def test_a_line_is_ascii_whatever_a_client_says() -> None:
    event = ClientUpdated(
        round=1,
        client="3",
        node_id="7",
        num_examples=1,
        metrics={},
        metadata={"note": "line\u2028end\n", "when": datetime(2026, 1, 2, tzinfo=UTC), "o": object},
        seconds=0.1,
        bytes=1,
    )
    line = to_line(event)
    assert line.isascii()
    assert "\n" not in line
    assert parse_line(line).metadata["note"] == "line\u2028end\n"


@pytest.mark.parametrize(
    "line",
    [
        '{"v": 1, "event": "moon-landed"}',
        '{"v": 2, "event": "round-finished", "round": 1, "seconds": 1}',
        '{"v": 1, "event": "round-finished", "round": "x"}',
        "{}",
    ],
)
def test_what_this_version_does_not_know_is_read_as_unknown(line: str) -> None:
    event = parse_line(line)
    assert isinstance(event, UnknownEvent)
    assert event.raw == json.loads(line)


def test_a_half_written_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(to_line(round_finished(1)) + "\n" + '{"v": 1, "ev')
    assert [event.round for event in read_events(path)] == [1]


def test_a_resume_supersedes_later_rounds_and_the_end_that_was_none() -> None:
    """Rounds 1, 2, a failure, resumed after 1, then 2 and 3: one story of 1, 2, 3."""
    story = [
        round_finished(1),
        round_finished(2, updates=9),
        RunFailed(error="killed", round=2, seconds=1),
        RunResumed(round=1, num_rounds=3, engine="local", nodes=2),
        round_finished(2, updates=5),
        round_finished(3),
    ]
    kept = current_events(story)
    assert [e.event for e in kept] == ["round-finished", "run-resumed", *["round-finished"] * 2]
    assert [e.updates for e in kept if isinstance(e, RoundFinished)] == [0, 5, 0]
