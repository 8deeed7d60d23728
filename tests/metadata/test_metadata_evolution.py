"""How a metadata class may change: the rules of ``docs/metadata.md``, carried out."""

from __future__ import annotations

import doctest
import re
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field

from fedwaggle.errors import MetadataError
from fedwaggle.metadata import pack, unpack

DOCUMENT = Path(__file__).parents[2] / "docs" / "metadata.md"


def version_of(name: str = "Report", version: int = 1, **fields: Any) -> type[Any]:
    """Make a class of ``name: type`` or ``name: (type, default)``."""
    listed = [
        (key, kind[0], field(default=kind[1])) if isinstance(kind, tuple) else (key, kind)
        for key, kind in fields.items()
    ]
    return make_dataclass(name, listed, namespace={"schema_version": version})


@dataclass
class Change:
    """Two versions of a class, and what a client of each sends."""

    old: type[Any]
    new: type[Any]
    from_old: dict[str, Any]
    from_new: dict[str, Any]


OLD = version_of(seconds=float, note=(str, "-"))
SENT: dict[str, Any] = {"seconds": 2.0, "note": "x"}
CHANGES = {
    "add a field with a default": Change(
        OLD, version_of(seconds=float, note=(str, "-"), epochs=(int, 1)), SENT, SENT | {"epochs": 3}
    ),
    "add a field without a default": Change(
        OLD, version_of(seconds=float, epochs=int, note=(str, "-")), SENT, SENT | {"epochs": 3}
    ),
    "remove a field with a default": Change(OLD, version_of(seconds=float), SENT, {"seconds": 2.0}),
    "remove a field without a default": Change(
        OLD, version_of(note=(str, "-")), SENT, {"note": "x"}
    ),
    "rename a field with a default": Change(
        OLD, version_of(seconds=float, remark=(str, "?")), SENT, {"seconds": 2.0, "remark": "x"}
    ),
    "change the order of fields": Change(
        version_of(seconds=float, epochs=int),
        version_of(epochs=int, seconds=float),
        {"seconds": 2.0, "epochs": 3},
        {"seconds": 2.0, "epochs": 3},
    ),
    "turn `int` into `float`": Change(
        version_of(epochs=int), version_of(epochs=float), {"epochs": 3}, {"epochs": 1.5}
    ),
    "turn `float` into `float \\| None`": Change(
        version_of(loss=float), version_of(loss=float | None), {"loss": 0.5}, {"loss": None}
    ),
    "add a choice to a `Literal` or an `Enum`": Change(
        version_of(mode=Literal["a"]),
        version_of(mode=Literal["a", "b"]),
        {"mode": "a"},
        {"mode": "b"},
    ),
    "narrow a limit": Change(
        version_of(share=float),
        version_of(share=Annotated[float, Field(le=1)]),
        {"share": 2.0},
        {"share": 0.5},
    ),
    "rename the class": Change(
        OLD, version_of("Other", seconds=float, note=(str, "-")), SENT, SENT
    ),
    "raise `schema_version`": Change(
        OLD, version_of(version=2, seconds=float, note=(str, "-")), SENT, SENT
    ),
}


def rules() -> dict[str, tuple[str, str]]:
    """Read the table of the document: change -> what happens each way."""
    text = DOCUMENT.read_text().partition("| change |")[2].partition("\n\n")[0]
    cells = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in text.splitlines()[2:]]
    return {change: (new_server, old_server) for change, new_server, old_server in cells}


def outcome(sent: object, cls: type[Any]) -> str:
    try:
        read = unpack(pack(sent), cls)
    except MetadataError as error:
        return str(error.code)
    shared = vars(read).keys() & vars(sent).keys()
    assert all(getattr(read, name) == getattr(sent, name) for name in shared)
    return "accepted"


def test_every_rule_is_carried_out() -> None:
    """The table and the changes here are the same list."""
    assert list(rules()) == list(CHANGES)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_does_what_the_document_says(change: str) -> None:
    """Both ways: a new server with an old client, an old server with a new client."""
    versions, (new_server, old_server) = CHANGES[change], rules()[change]
    assert new_server.startswith(outcome(versions.old(**versions.from_old), versions.new))
    assert old_server.startswith(outcome(versions.new(**versions.from_new), versions.old))


def test_a_renamed_field_is_read_as_its_default() -> None:
    """What the table calls "value lost"."""
    change = CHANGES["rename a field with a default"]
    assert unpack(pack(change.old(**change.from_old)), change.new).remark == "?"
    assert unpack(pack(change.new(**change.from_new)), change.old).note == "-"


@dataclass
class Inner:
    count: int
    added: str = "-"


@dataclass
class Outer:
    inner: Inner
    inners: list[Inner]
    schema_version: ClassVar[int] = 1


def test_the_rules_hold_inside_too() -> None:
    """A nested object from before ``added``, with a field since removed."""
    record = pack(Outer(Inner(1), []))
    record["payload"] = b'{"inner":{"count":1,"removed":[]},"inners":[{"count":2}]}'
    assert unpack(record, Outer) == Outer(Inner(1, "-"), [Inner(2, "-")])


def test_the_examples_of_the_document_run() -> None:
    """What the page shows is what comes out."""
    failures, examples = doctest.testfile(str(DOCUMENT), module_relative=False)
    assert examples > 0
    assert failures == 0


def test_the_document_explains_every_code() -> None:
    """A refusal that the page does not explain could not be acted on."""
    from fedwaggle.errors import MetadataCode

    table = DOCUMENT.read_text().partition("| code |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([a-z-]+)`", table, re.MULTILINE) == list(MetadataCode)
