"""The top of a report: how the run stands, its figures, and what it ran on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fedwaggle.config import default_values
from fedwaggle.numbers import value_text
from fedwaggle.runs.events import RunFailed, RunFinished
from fedwaggle.runs.record import config_of, status_of
from fedwaggle.runs.report.charts.models import best_value, families
from fedwaggle.runs.report.story import RunStory, State
from fedwaggle.runs.report.words import bytes_text, seconds_text
from fedwaggle.runs.request import Request
from fedwaggle.text import printable

__all__ = [
    "Fact",
    "Note",
    "Status",
    "Tile",
    "changed_rows",
    "config_rows",
    "facts",
    "notes",
    "status",
    "tiles",
]


_PLACES = ("outputs", "resume", "fork", "run-name")  # they say where a run is, not what it is
_TONES = {"failed": "bad", "finished": "good", "running": "open", "interrupted": "warn"}


@dataclass(frozen=True)
class Status:
    """How a run stands, in a word; ``tone`` is the colour of the badge."""

    word: str
    tone: str


@dataclass(frozen=True)
class Tile:
    """One figure at the top."""

    label: str
    value: str
    detail: str = ""
    css: str = ""


@dataclass(frozen=True)
class Fact:
    """One line on what the run is."""

    label: str
    value: str
    is_hash: bool = False


@dataclass(frozen=True)
class Note:
    """What a reader of the report must know."""

    text: str
    bad: bool = False


def status(story: RunStory, *, is_live: bool) -> Status:
    """Return how a run stands; ``is_live`` states whether a process is writing it.

    Examples
    --------
    >>> status(RunStory(), is_live=False).word
    'interrupted'
    """
    word = status_of(story.ended, is_live=is_live)
    return Status(word, _TONES[word])


def tiles(story: RunStory) -> list[Tile]:
    """Return the figures at the top."""
    ends = story.finished_rounds
    up = sum(end.bytes_up for end in ends)
    down = sum(entry.started.bytes_down for entry in story.rounds.values() if entry.started)
    skipped = sum(end.skipped for end in ends)
    return [
        _best_tile(story),
        _last_tile(story),
        Tile("rounds", _rounds(story), f"{skipped} skipped" if skipped else "done / asked for"),
        Tile("clients", f"{len(story.clients):,}", _nodes(story)),
        _converged_tile(story),
        _quarantined_tile(story),
        _missing_tile(story),
        Tile("bytes up", bytes_text(up), "from the clients"),
        Tile("bytes down", bytes_text(down), "to the clients"),
        Tile("wall time", seconds_text(story.wall_seconds), _per_round(story)),
    ]


def _best_tile(story: RunStory) -> Tile:
    best = best_value(story)
    if best is None:
        return Tile("best model", "none yet", "no metric was recorded")
    name = printable(best.metric, 30)
    return Tile(f"best {name}", value_text(best.metric, best.value), f"round {best.round}", "main")


def _last_tile(story: RunStory) -> Tile:
    best = best_value(story)
    found = families(story.finished_rounds)
    values = next((f.main for f in found if best and f.name == best.metric), None)
    if values is None:
        values = found[0].main if found else {}
    if not values:
        return Tile("last value", "none yet")
    at = max(values)
    name = best.metric if best and any(f.name == best.metric for f in found) else found[0].name
    return Tile(f"last {printable(name, 30)}", value_text(name, values[at]), f"round {at}")


def _rounds(story: RunStory) -> str:
    done = sum(end.round > 0 for end in story.finished_rounds)
    asked = story.resumes[-1].num_rounds if story.resumes else None
    if asked is None and story.started:
        asked = story.started.num_rounds
    return f"{done} / {asked}" if asked is not None else str(done)


def _nodes(story: RunStory) -> str:
    nodes = story.started.nodes if story.started else None
    return "sampled so far" if nodes is None else f"sampled, of {nodes:,} nodes"


def _converged_tile(story: RunStory) -> Tile:
    said: Counter[int] = Counter()
    converged: Counter[int] = Counter()
    for cell in story.cells:
        if cell.state in (State.LEARNING, State.CONVERGED):
            said[cell.round] += 1
            converged[cell.round] += cell.state is State.CONVERGED
    if not said:
        return Tile("converged", "not reported", "by the clients' metadata")
    at = max(said)
    return Tile("converged", f"{converged[at]} / {said[at]}", f"clients of round {at}")


def _quarantined_tile(story: RunStory) -> Tile:
    """Return the refused share of the training; of evaluations only the refused are recorded."""
    refused = story.quarantined_in
    replies = sum(cell.state.admitted for cell in story.cells) + refused["train"]
    detail = f"of {replies:,} training replies"
    if refused["evaluate"]:
        detail += f", and {refused['evaluate']:,} in evaluation"
    return Tile("quarantined", f"{refused['train']:,}", detail, "alarm" if refused else "")


def _missing_tile(story: RunStory) -> Tile:
    detail = f"of {len(story.cells):,} sampled"
    if story.evaluate_missing:
        detail += f", and {story.evaluate_missing:,} in evaluation"
    return Tile("missing", f"{story.missing:,}", detail)


def _per_round(story: RunStory) -> str:
    seconds = [end.seconds for end in story.finished_rounds if end.round > 0]
    return f"{seconds_text(sum(seconds) / len(seconds))} a round" if seconds else ""


def facts(story: RunStory, request: Request | None) -> list[Fact]:
    """Return what the run is and what it ran on."""
    begun = story.started
    found = []
    if begun:
        engine = story.resumes[-1].engine if story.resumes else begun.engine
        found += [
            Fact("Seed", str(begun.seed)),
            Fact("Engine", printable(engine, 60)),
            Fact("Versions", _versions(begun.versions)),
        ]
    if isinstance(story.ended, RunFinished):
        found.append(Fact("Last model, SHA-256", printable(story.ended.sha256, 80), is_hash=True))
    if story.best:
        found.append(Fact("Best model, SHA-256", printable(story.best.sha256, 80), is_hash=True))
    if begun and begun.sha256:
        found.append(Fact("Initial model, SHA-256", printable(begun.sha256, 80), is_hash=True))
    if request:
        asked = {"Code": request.code, "Data": request.dataset, "Forked from": request.forked_from}
        found += [Fact(label, printable(v, 100), is_hash=True) for label, v in asked.items() if v]
    return found


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{printable(k, 30)} {printable(v, 30)}" for k, v in versions.items())


def notes(story: RunStory, left_out: Sequence[str]) -> list[Note]:
    """Return what a reader must know: an error, resumes, what could not be read or drawn."""
    found = []
    if isinstance(story.ended, RunFailed):
        error = printable(story.ended.error, 1000)
        found.append(Note(f"The run failed in round {story.ended.round}: {error}", bad=True))
    for each in story.not_repeatable:
        since = f"from round {each.round} on" if each.round else "from the start"
        found.append(Note(f"Not repeatable {since}: {printable(each.reason, 500)}."))
    for resumed in story.resumes:
        changed = "".join(
            f"; {printable(key, 40)} is now {printable(repr(values[-1:])[1:-1], 60)}"
            for key, values in resumed.changes.items()
        )
        after = f"after round {resumed.round}" if resumed.round >= 0 else "from the start"
        found.append(Note(f"Resumed {after}{changed}."))
    if story.superseded:
        found.append(
            Note(
                f"{story.superseded:,} events of rounds that a resume ran again are left out; "
                "they stay in events.jsonl."
            )
        )
    if story.damaged_lines:
        found.append(
            Note(f"Damaged lines of events.jsonl, which are left out: {story.damaged_lines:,}.")
        )
    if story.unknown:
        kinds = ", ".join(f"{printable(k, 40)} ({n:,})" for k, n in story.unknown.most_common(5))
        count = story.unknown.total()
        found.append(Note(f"{count:,} events of a newer version are left out: {kinds}."))
    return found + [Note(text) for text in left_out]


def changed_rows(story: RunStory) -> list[tuple[str, str]]:
    """Return the keys of the run config that have another value than the library's default."""
    defaults = default_values()
    return [
        (key, value)
        for key, value in config_rows(story)
        if key not in _PLACES and value != str(defaults.get(key, ""))
    ]


def config_rows(story: RunStory) -> list[tuple[str, str]]:
    """Return the run config for the page, by key."""
    config = config_of(story.started, story.resumes)
    return [(printable(key, 80), printable(str(config[key]), 300)) for key in sorted(config)]
