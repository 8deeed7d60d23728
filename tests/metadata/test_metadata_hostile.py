"""Whatever bytes come, ``unpack`` returns a checked object or raises ``MetadataError``.

Most inputs here are made in loops inside of an example: hypothesis chooses where to begin, and
its own cost for each example stays small against that of the thousands of inputs.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter

from fedwaggle.errors import MetadataCode, MetadataError
from fedwaggle.metadata import pack, unpack
from fedwaggle.metadata.refusal_costs import errors_per_value


class Phase(Enum):
    WARM = "warm"


@dataclass
class Inner:
    count: Annotated[int, Field(ge=0)]


@dataclass
class Report:
    seconds: float
    converged: bool
    inner: Inner | None = None
    losses: dict[str, float] = field(default_factory=dict)
    epochs: dict[int, list[Inner]] = field(default_factory=dict)
    phase: Phase = Phase.WARM
    mode: Literal["a", 1] = "a"
    at: datetime | None = None
    raw: bytes = b""
    either: int | str | list[float] = 0
    extra: Any = None

    def __post_init__(self) -> None:
        """Raise what a user's own check may raise."""
        if self.either == "boom":
            raise KeyError(self.either)


@dataclass
class Tree:
    value: int
    branches: list[Tree] = field(default_factory=list)


Wide = make_dataclass("Wide", [(f"field_{i}", int) for i in range(100)])
GOOD = Report(
    1.5,
    True,
    Inner(3),
    {"epoch_1": 0.5, "epoch_2": 1e-8},
    {1: [Inner(0), Inner(7)]},
    at=datetime(2026, 1, 2),
    raw=b"\x00\xff",
    either=[0.5],
    extra={"a": [None, {}]},
)
PAYLOAD = pack(GOOD)["payload"]
MIB = 1_048_576
PIECES = [
    *(b'{"', b'"}', b"[[", b"]}", b"NaN", b"-Infinity", b"1e999", b"null", b"true", b'"boom"'),
    *(b"\\u0000", b"\\ud800", b"\xed\xa0\x80", b"\xff", b"-", b"9" * 5000, b'"either":"boom",'),
]


def outcome(payload: object, cls: type[Any] = Report, **envelope: Any) -> str:
    """Unpack; return "accepted" or the code of the refusal. Anything else escapes."""
    record = {"schema": cls.__name__, "version": 1, "payload": payload} | envelope
    try:
        found = unpack(record, cls, max_bytes=MIB)  # type: ignore[arg-type]  # a Mapping will do
    except MetadataError as error:
        refusal = error
    else:
        pack(found, max_bytes=2 * MIB)  # what was accepted is valid
        return "accepted"
    assert len(str(refusal)) < 3_000
    assert str(refusal).isprintable()
    assert len(refusal.paths) <= 100
    return refusal.code


def mutated(payload: bytes, chance: random.Random) -> bytes:
    """Change, cut, repeat or insert something, a few times."""
    content = bytearray(payload)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(content) + 1)
        match chance.randrange(5):
            case 0:
                content[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del content[at : at + chance.randint(1, 8)]
            case 2:
                content[at:at] = content[at : at + chance.randint(1, 60)]
            case 3:
                content[at:at] = chance.choice(PIECES)
            case _:
                content[at : at + chance.randint(1, 8)] = chance.choice(PIECES)
    return bytes(content)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**64))
def test_no_mutation_of_a_good_payload_escapes(seed: int) -> None:
    """100 x 200 mutations."""
    chance = random.Random(seed)
    for _ in range(200):
        assert outcome(mutated(PAYLOAD, chance)) in {"accepted", "malformed", "invalid"}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**64))
def test_no_random_bytes_escape(seed: int) -> None:
    """50 x 200 strings of bytes of up to 4 kB. Chance does not write JSON objects."""
    chance = random.Random(seed)
    for _ in range(200):
        payload = chance.randbytes(int(4096 ** chance.random()))
        assert outcome(payload) in {"malformed", "invalid"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.sampled_from(list(Report.__dataclass_fields__)), JSON)


@settings(max_examples=150, deadline=None)
@given(FIELDS)
def test_no_value_in_a_field_escapes(fields: dict[str, Any]) -> None:
    """Right names with any values of JSON, NaN and infinity too."""
    assert outcome(json.dumps(fields).encode()) in {"accepted", "malformed", "invalid"}


VALUES = st.none() | st.integers() | st.floats() | st.text() | st.binary() | st.booleans()
ENVELOPES = st.dictionaries(
    st.sampled_from(["schema", "version", "payload", "codec", "other"]),
    VALUES | st.lists(VALUES, max_size=3),
)


@settings(max_examples=500, deadline=None)
@given(ENVELOPES)
def test_no_envelope_escapes(envelope: dict[str, Any]) -> None:
    """Any values under the keys of a record, also such as no record of Flower's can hold."""
    payload = envelope.pop("payload", PAYLOAD)
    assert outcome(payload, **envelope) in {"accepted", *MetadataCode}


def test_what_a_users_own_check_raises_is_a_refusal() -> None:
    """A KeyError in ``__post_init__``."""
    assert outcome(PAYLOAD.replace(b"[0.5]", b'"boom"')) == "malformed"


BEGIN = b'{"seconds":1.0,"converged":true,"extra":['
WORST: dict[str, Callable[[], bytes]] = {
    "deep": lambda: b'{"extra":' + b"[" * (MIB - 10),
    "half a million values": lambda: BEGIN + b"0," * 500_000 + b"0]}",
    "lists": lambda: BEGIN + b"[]," * ((MIB - 60) // 3) + b"0]}",
    "objects": lambda: BEGIN + b"{}," * ((MIB - 60) // 3) + b"0]}",
    "bad values": lambda: b'{"losses":{' + b'"":"",' * ((MIB - 60) // 6) + b'"a":0}}',
    "bad values of their own names": lambda: (
        b'{"losses":{' + b",".join(b'"%x":""' % i for i in range(90_000)) + b"}}"
    ),
    "a few thousand bad values": lambda: (
        b'{"losses":{' + b",".join(b'"%d%s":""' % (i, b"x" * 100) for i in range(9_000)) + b"}}"
    ),
    "bad list items": lambda: b'{"either":[' + b'"",' * ((MIB - 60) // 3) + b'""]}',
    "one long name": lambda: b'{"losses":{"' + b"n" * (MIB - 60) + b'":""}}',
    "one long text": lambda: b'{"seconds":"' + b"\\u00e9" * ((MIB - 60) // 6) + b'"}',
    "bytes": lambda: bytes(range(256)) * 4096,
}
WORST_OF_CLASS: list[tuple[type[Any], bytes]] = [
    (Wide, b'{"extra":[' + b"[]," * 340_000 + b"0]}"),  # 100 errors, each with all of it
    (Wide, b'{"extra":[' + b"[]," * 20_000 + b"0]}"),  # just below the limit
    (Tree, b'{"branches":[' * 90 + b"{}," * 300_000 + b"{}" + b"]}" * 90),  # one a level
    (Tree, b'{"branches":[' * 90 + b"{}," * 15_000 + b"{}" + b"]}" * 90),
]
PROBE = """
import resource, sys, time
sys.path.insert(0, sys.argv[1])
import test_metadata_hostile as hostile
hostile.outcome(hostile.PAYLOAD)
at_first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
cases = [(name, make(), hostile.Report) for name, make in hostile.WORST.items()]
cases += [(cls.__name__, payload, cls) for cls, payload in hostile.WORST_OF_CLASS]
for name, payload, cls in cases:
    began = time.process_time()
    assert len(payload) <= hostile.MIB
    code = hostile.outcome(payload, cls)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - at_first
    print(name, code, grown_kib // 1024, time.process_time() - began, sep="\t")
"""


def test_the_worst_mebibyte_costs_little() -> None:
    """At most 400 MiB of memory in all, and 5 s of one core each, for what is just decoded."""
    run = subprocess.run(
        [sys.executable, "-c", PROBE, str(Path(__file__).parent)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    lines = [line.split("\t") for line in run.stdout.splitlines()]
    assert len(lines) == len(WORST) + len(WORST_OF_CLASS)
    for name, code, grown_mib, cpu_seconds in lines:
        assert code in {"accepted", "malformed", "invalid", "too-large"}, name
        assert int(grown_mib) < 400, name
        assert float(cpu_seconds) < 5, name


def test_what_is_large_and_ordinary_is_accepted() -> None:
    """45,000 floats, 25,000 named ones, 30,000 small objects, rows of numbers, a long text."""
    chance = random.Random(0)
    for report in (
        Report(1.0, True, either=[chance.random() for _ in range(45_000)]),
        Report(1.0, True, losses={f"epoch_{i}": chance.random() for i in range(25_000)}),
        Report(1.0, True, epochs={i: [Inner(1)] * 10 for i in range(3_000)}),
        Report(1.0, True, extra=[[0.5] * 100] * 2_000),
        Report(1.0, True, extra="x" * 1_000_000),
    ):
        record = pack(report, max_bytes=MIB)
        assert len(record["payload"]) > MIB / 3  # type: ignore[arg-type]
        assert unpack(record, Report, max_bytes=MIB) == report


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Errors:
    first: int  # 1, if it is missing
    either: int | str | None  # 1, and 2 if neither fits
    pair: tuple[int, str]  # 1, and 2 if the items are missing
    point: Point  # 1, and 2
    at: datetime | None = None


def test_the_errors_that_a_value_can_have_are_counted() -> None:
    """Four required fields, two choices, two items and the two fields of a named tuple."""
    assert errors_per_value(TypeAdapter(Errors).core_schema) == 4 + 2 + 2 + 2
    assert errors_per_value(TypeAdapter(dict[str, list[float]]).core_schema) == 0
    older = {"type": "arguments", "arguments_schema": [{"name": "x"}, {"name": "y"}]}
    assert errors_per_value(older) == 2
