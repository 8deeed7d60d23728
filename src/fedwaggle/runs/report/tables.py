"""The tables of a report: decisions, refused replies, clients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedwaggle.numbers import as_float, number_text
from fedwaggle.runs.events import CheckpointFailed, ClientUpdated
from fedwaggle.runs.report.charts.cells import ClientFacts
from fedwaggle.runs.report.story import MOST_KEPT, RunStory
from fedwaggle.runs.report.words import natural_key, seconds_text
from fedwaggle.text import printable

__all__ = ["TableCell", "TableColumn", "TableOf", "TableRow", "tables"]

_MOST_CLIENTS = 200
_MOST_TEXTS = 10  # of one field


@dataclass(frozen=True)
class TableColumn:
    """A column; one of numbers can be sorted."""

    name: str
    number: bool = False


@dataclass(frozen=True)
class TableCell:
    """A cell: its text, and its value where the column is sorted by it."""

    text: str
    css: str = ""
    value: float | None = None


@dataclass(frozen=True)
class TableRow:
    """A row; ``round`` and ``clients`` (ids, with spaces between) are what filters look at."""

    cells: Sequence[TableCell]
    round: str = ""
    clients: str = ""


@dataclass(frozen=True)
class TableOf:
    """A table and the words around it."""

    key: str
    title: str
    columns: Sequence[TableColumn]
    rows: Sequence[TableRow]
    nothing: str = ""
    note: str = ""
    counts: Sequence[str] = ()


def tables(story: RunStory, clients: Sequence[ClientFacts]) -> list[TableOf]:
    """Return the report's tables, in their order; some only if they have rows."""
    ids = {client.name: client.id for client in clients}
    always = [_decisions(story, ids), _quarantines(story, ids)]
    maybe = [
        _bounded(story, ids),
        _silent(story, ids),
        _refusals(story, ids),
        _troubles(story),
        _texts(story),
        _sites(story, ids),
        _clients(clients),
    ]
    return always + [table for table in maybe if table.rows]


def _decisions(story: RunStory, ids: Mapping[str, int]) -> TableOf:
    rows = [
        TableRow(
            [
                _number(d.round),
                _text(d.policy, 60),
                _text(d.action, 300, "text"),
                _text(d.reason, 500, "text"),
                _text(_listed(d.clients), 400),
            ],
            round=str(d.round),
            clients=_ids(d.clients, ids),
        )
        for d in story.decisions.shown
    ]
    return TableOf(
        "decisions",
        "Decisions",
        _columns("#Round", "Policy", "Action", "Reason", "Clients"),
        rows,
        nothing="No policy took a decision.",
        note=_cut(len(rows), story.decisions.count),
    )


def _quarantines(story: RunStory, ids: Mapping[str, int]) -> TableOf:
    rows = [
        TableRow(
            [
                _number(q.round),
                _text(q.client, 60),
                _text(q.code, 60),
                _text(q.reason, 500, "text"),
                _text(q.phase, 20),
                _number(q.seconds, seconds_text(q.seconds)),
            ],
            round=str(q.round),
            clients=_ids([q.client], ids),
        )
        for q in story.quarantines.shown
    ]
    return TableOf(
        "quarantine",
        "Quarantine: replies that were not used",
        _columns("#Round", "Client", "Code", "Reason", "Phase", "#After"),
        rows,
        nothing="No reply was refused.",
        note=_cut(len(rows), story.quarantines.count),
        counts=_counts(story.quarantines.kinds),
    )


def _bounded(story: RunStory, ids: Mapping[str, int]) -> TableOf:
    rows = [
        TableRow(
            [
                _number(u.round),
                _text(u.client, 60),
                _number(100 * u.scale, f"{100 * u.scale:.3g} %"),
                _number(as_float(u.num_examples), number_text(as_float(u.num_examples))),
                _number(as_float(_weight(u)), number_text(as_float(_weight(u)))),
            ],
            round=str(u.round),
            clients=_ids([u.client], ids),
        )
        for u in story.bounded.shown
    ]
    return TableOf(
        "bounded",
        "Updates out of line: they count for less",
        _columns("#Round", "Client", "#Change used", "#Examples", "#Counted as"),
        rows,
        note=_cut(len(rows), story.bounded.count),
    )


def _weight(update: ClientUpdated) -> float:
    return update.num_examples if update.weight is None else update.weight


def _silent(story: RunStory, ids: Mapping[str, int]) -> TableOf:
    """Return who never evaluated; who never trained has a state of its own in the charts."""
    ends = [end for end in story.finished_rounds if end.evaluate_missing]
    rows = [
        TableRow(
            [
                _number(end.round),
                _number(len(end.evaluate_missing)),
                _text(_listed(end.evaluate_missing), 400),
            ],
            round=str(end.round),
            clients=_ids(end.evaluate_missing, ids),
        )
        for end in ends[-MOST_KEPT:]
    ]
    return TableOf(
        "silent",
        "Missing in evaluation",
        _columns("#Round", "#Missing", "Clients"),
        rows,
        note=_cut(len(rows), len(ends)),
    )


def _refusals(story: RunStory, ids: Mapping[str, int]) -> TableOf:
    rows = [
        TableRow(
            [
                _number(r.round),
                _text(r.client, 60),
                _text(r.code, 60),
                _text(r.message, 500, "text"),
                _text(_listed(r.paths), 300),
            ],
            round=str(r.round),
            clients=_ids([r.client], ids),
        )
        for r in story.refusals.shown
    ]
    return TableOf(
        "refusals",
        "Metadata that was refused (the weights were used)",
        _columns("#Round", "Client", "Code", "Reason", "Fields"),
        rows,
        note=_cut(len(rows), story.refusals.count),
        counts=_counts(story.refusals.kinds),
    )


def _troubles(story: RunStory) -> TableOf:
    rows = [
        TableRow(
            [
                _number(t.round),
                _text("best model" if isinstance(t, CheckpointFailed) else "resume point", 20),
                _text(t.error, 500, "text"),
            ],
            round=str(t.round),
        )
        for t in story.troubles.shown
    ]
    return TableOf(
        "troubles",
        "Files that could not be written",
        _columns("#Round", "File", "Error"),
        rows,
        note=_cut(len(rows), story.troubles.count),
    )


def _texts(story: RunStory) -> TableOf:
    """Return what clients report in words: an operating system, a device, a reason."""
    rows = [
        TableRow([_text(name, 60), _text(text, 100, "text"), _number(count)])
        for name, counts in story.fields.texts.items()
        for text, count in counts.most_common(_MOST_TEXTS)
    ]
    return TableOf(
        "texts", "What clients report in words", _columns("Field", "Text", "#Updates"), rows
    )


def _sites(story: RunStory, ids: Mapping[str, int]) -> TableOf:
    """Return what sites keep back or make less exact, as each last reported it."""
    rows = [
        TableRow([_text(name, 60), _text(site.in_words, 600, "text")], clients=_ids([name], ids))
        for name, site in sorted(story.sites.items(), key=lambda item: natural_key(item[0]))
    ]
    return TableOf("sites", "What policies of sites do", _columns("Client", "Policy"), rows)


def _clients(clients: Sequence[ClientFacts]) -> TableOf:
    shown = clients
    if len(clients) > _MOST_CLIENTS:
        shown = sorted(clients, key=lambda client: client.worth)[:_MOST_CLIENTS]
    last = {None: "", True: "converged", False: "learning"}
    rows = [
        TableRow(
            [
                _text(c.name, 60),
                _number(len(c.rows)),
                _number(c.admitted),
                _number(c.quarantined),
                _number(c.missing),
                _number(c.slow),
                _number(c.seconds, "" if c.seconds is None else seconds_text(c.seconds)),
                _number(c.num_examples),
                _text(last[c.last_converged], 20),
            ],
            clients=str(c.id),
        )
        for c in shown
    ]
    return TableOf(
        "clients",
        "Clients",
        _columns(
            "Client",
            "#Sampled",
            "#Used",
            "#Quarantined",
            "#Missing",
            "#Straggled",
            "#Training time, median",
            "#Examples",
            "Last word",
        ),
        rows,
        note=f"The {len(shown)} of {len(clients):,} clients that are worth a look first."
        if len(shown) < len(clients)
        else "",
    )


def _columns(*names: str) -> list[TableColumn]:
    """Return columns; a name that begins with # is of numbers."""
    return [TableColumn(name.lstrip("#"), name.startswith("#")) for name in names]


def _text(text: str, limit: int, css: str = "") -> TableCell:
    return TableCell(printable(text, limit), css)


def _number(value: float | None, text: str | None = None) -> TableCell:
    if value is None:
        return TableCell("", "num", -1)
    return TableCell(number_text(value) if text is None else text, "num", value)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return ", ".join(printable(name, 40) for name in names[:12]) + more


def _ids(names: Iterable[str], ids: Mapping[str, int]) -> str:
    return " ".join(str(ids[name]) for name in names if name in ids)


def _counts(codes: Counter[str]) -> list[str]:
    return [f"{printable(code, 60)}: {count:,}" for code, count in codes.most_common(12)]


def _cut(shown: int, all_of_them: int) -> str:
    if shown == all_of_them:
        return ""
    return f"The last {shown} of {all_of_them:,}; all of them are in events.jsonl."
