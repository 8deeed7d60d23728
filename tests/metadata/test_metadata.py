"""The metadata contract: what goes in comes out, and what does not fit is refused by name."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, RecordDict
from pydantic import AllowInfNan, Field

from fedwaggle.errors import ConfigError, MetadataCode, MetadataError
from fedwaggle.metadata import Codec, pack, schema_of, unpack


class Phase(Enum):
    WARM = "warm"
    COLD = "cold"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True, slots=True)
class Device:
    name: str
    memory_bytes: int = 0


@dataclass(frozen=True)
class Everything:
    seconds: float
    converged: bool
    device: Device
    note: str | None
    devices: list[Device]
    by_name: dict[str, Device]
    by_epoch: dict[int, float]
    phase: Phase
    level: Level
    mode: Literal["fast", 3]
    at: datetime
    day: date
    lasted: timedelta
    share: Annotated[float, Field(ge=0, le=1)]
    pair: tuple[int, str]
    tags: set[str]
    raw: bytes
    either: int | str
    loss: Annotated[float, AllowInfNan(True)] = math.inf
    extra: Any = None


EVERYTHING = Everything(
    seconds=2.5,
    converged=True,
    device=Device("cpu", 8),
    note=None,
    devices=[Device("a"), Device("b")],
    by_name={"x": Device("c")},
    by_epoch={1: 0.9, 2: 0.4},
    phase=Phase.COLD,
    level=Level.HIGH,
    mode=3,
    at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    day=date(2026, 1, 2),
    lasted=timedelta(seconds=1.5),
    share=1.0,
    pair=(1, "é"),
    tags={"a"},
    raw=b"\x00\xff",
    either="3",
    extra={"deep": [1, None, {"er": True}]},
)


@dataclass
class Battery:
    percent: float
    cells: list[int] = field(default_factory=list)
    schema_version: ClassVar[int] = 2


def record(payload: bytes, /, **changes: Any) -> ConfigRecord:
    return ConfigRecord({"schema": "Battery", "version": 2, "payload": payload} | changes)


def refusal(work: Callable[[], object]) -> MetadataError:
    with pytest.raises(MetadataError) as caught:
        work()
    return caught.value


def test_every_supported_type_comes_back_as_it_was() -> None:
    """Nested, frozen, slotted, optional, containers, enums, literals, times, bytes, infinity."""
    assert unpack(pack(EVERYTHING), Everything) == EVERYTHING


def test_a_record_names_its_class_and_version() -> None:
    """Three values that a Flower record can carry, and no name of a class to import."""
    packed = pack(Battery(80.0, [1]))
    assert dict(packed) == {
        "schema": "Battery",
        "version": 2,
        "payload": b'{"percent":80.0,"cells":[1]}',
    }
    assert schema_of(Battery) == ("Battery", 2)


def test_an_allowed_nan_stays_a_nan() -> None:
    """A field that allows NaN gives NaN back."""
    assert math.isnan(
        unpack(pack(replace(EVERYTHING, loss=math.nan)), Everything).loss,
    )


def test_a_float_of_numpy_or_torch_leaves_as_a_float() -> None:
    """A loss is often ``np.float32`` or a tensor with one value: it has one meaning as a float."""
    for value in (np.float32(2.5), torch.tensor(2.5), 2):
        packed = pack(Battery(value))  # type: ignore[arg-type]
        assert type(unpack(packed, Battery).percent) is float


@dataclass(frozen=True, slots=True)
class Cell:
    """A frozen, slotted part of metadata."""

    charge: float
    is_full: bool


@dataclass
class Fleet:
    """Metadata whose values come from NumPy and torch at every depth."""

    cells: list[Cell]
    counts: dict[int, int]
    by_name: dict[str, tuple[bool, float]]
    anything: Any


@pytest.mark.parametrize("codec", ["json", "pickle"])
def test_scalars_of_numpy_and_torch_leave_as_python_values(codec: Codec) -> None:
    """In nested dataclasses, lists, tuples and as keys; the client's own object keeps them."""
    sent = Fleet(
        cells=[
            Cell(torch.tensor(0.5), np.bool_(True)),  # type: ignore[arg-type]
            Cell(np.float16(0.25), torch.tensor(False)),  # type: ignore[arg-type]
        ],
        counts={np.int64(3): torch.tensor(4), 5: np.uint8(6)},  # type: ignore[dict-item]
        by_name={"a": (np.bool_(False), np.array(2.0))},  # type: ignore[dict-item]
        anything=[np.int32(7), torch.tensor(True, requires_grad=False)],
    )
    got = unpack(pack(sent, codec=codec), Fleet, codec=codec, trust_pickle=codec == "pickle")
    assert got == Fleet(
        cells=[Cell(0.5, True), Cell(0.25, False)],
        counts={3: 4, 5: 6},
        by_name={"a": (False, 2.0)},
        anything=[7, True],
    )
    held = [got.cells[0].is_full, got.counts[3], *got.by_name["a"], *got.anything]
    assert [type(value) for value in held] == [bool, int, bool, float, int, bool]
    assert isinstance(sent.cells[0].is_full, np.bool_)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"seconds": math.nan}, "seconds"),
        ({"seconds": math.inf}, "seconds"),
        ({"seconds": "2.5"}, "seconds"),
        ({"seconds": True}, "seconds"),
        ({"converged": 1}, "converged"),
        ({"converged": np.int64(1)}, "converged"),
        ({"converged": torch.tensor([True, False])}, "converged"),
        ({"device": None}, "device"),
        ({"device": Device("cpu", memory_bytes="8")}, "device.memory_bytes"),  # type: ignore[arg-type]
        ({"devices": [Device("a"), Device(1)]}, "devices.1.name"),  # type: ignore[arg-type]
        ({"by_name": {"x": Device("c", memory_bytes=1.5)}}, "by_name.x.memory_bytes"),  # type: ignore[arg-type]
        ({"phase": "cold"}, "phase"),  # on the client's side an Enum is an Enum
        ({"mode": "slow"}, "mode"),
        ({"share": 1.5}, "share"),
        ({"pair": (1, "a", 2)}, "pair"),
        ({"at": "2026-01-02"}, "at"),
    ],
)
def test_a_wrong_value_does_not_leave_the_client(change: dict[str, Any], path: str) -> None:
    """Dataclasses do not check their fields; ``pack`` does, strictly, down to the leaf."""
    error = refusal(lambda: pack(replace(EVERYTHING, **change)))
    assert (error.code, error.paths) == (MetadataCode.INVALID, (path,))
    assert path in str(error)


@pytest.mark.parametrize(
    ("payload", "code", "paths"),
    [
        (b"", "malformed", ()),
        (b"null", "malformed", ()),
        (b"[80.0]", "malformed", ()),
        (b'{"percent":80.0', "malformed", ()),
        (b'{"percent":80.0}}', "malformed", ()),
        (b"\xff\xfe", "malformed", ()),
        (b"[" * 60_000, "malformed", ()),
        (b'{"cells":[' + b"9" * 5_000 + b"]}", "malformed", ()),
        (b"{}", "invalid", ("percent",)),
        (b'{"percent":"80.0"}', "invalid", ("percent",)),
        (b'{"percent":NaN}', "invalid", ("percent",)),
        (b'{"percent":-Infinity}', "invalid", ("percent",)),
        (b'{"percent":1e999}', "invalid", ("percent",)),
        (b'{"percent":true}', "invalid", ("percent",)),
        (b'{"percent":80.0,"cells":null}', "invalid", ("cells",)),
        (b'{"cells":[1,"2",3,4.0]}', "invalid", ("percent", "cells.1", "cells.3")),
    ],
)
def test_a_wrong_payload_is_refused_with_the_paths_of_all_bad_fields(
    payload: bytes, code: str, paths: tuple[str, ...]
) -> None:
    """The server checks the same, whatever made the bytes."""
    error = refusal(lambda: unpack(record(payload), Battery))
    assert (error.code, error.paths) == (code, paths)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"schema": 3}, "malformed", "schema: expected str, got int"),
        ({"version": True}, "malformed", "version: expected int, got bool"),
        ({"payload": "{}"}, "malformed", "payload: expected bytes, got str"),
        ({"codec": "pickle"}, "malformed", "this server reads json"),
        ({"codec": ["json"]}, "malformed", "this server reads json"),
        ({"schema": "Other"}, "wrong-schema", "expected Battery, got str 'Other'"),
        ({"schema": "\x1b[31m" + "x" * 10**6}, "wrong-schema", "expected Battery"),
        ({"version": 1}, "wrong-version", "this side has 2, the record has int 1"),
    ],
)
def test_a_wrong_envelope_is_refused_before_the_payload_is_read(
    changes: dict[str, Any], code: str, said: str
) -> None:
    """The message is short and printable, whatever came."""
    error = refusal(lambda: unpack(record(b"not read", **changes), Battery))
    assert error.code == code
    assert said in str(error)
    assert len(str(error)) < 500
    assert str(error).isprintable()


def test_an_empty_record_names_all_that_is_missing() -> None:
    """Three keys, told at once."""
    said = str(refusal(lambda: unpack(ConfigRecord(), Battery)))
    assert "schema: expected str, got nothing, version: expected int, got nothing" in said


def test_unknown_fields_are_ignored_and_missing_ones_take_their_default() -> None:
    """So that clients and servers need not change on the same day."""
    assert unpack(record(b'{"percent":80.0,"new":[{}]}'), Battery) == Battery(80.0, [])


@pytest.mark.parametrize(
    ("bad", "listed", "paths", "said"),
    [
        (3, 3, 3, "cells.2: expected a valid integer, got str 'x'"),
        (200, 10, 100, "; and 190 more"),
        (9_000, 10, 100, "cells.9: expected a valid integer; and"),  # their inputs are not copied
        (20_000, 0, 0, "20000 bad fields, too many to list"),
    ],
)
def test_a_refusal_stays_short_however_much_is_bad(
    bad: int, listed: int, paths: int, said: str
) -> None:
    """The first 10 are described, the first 100 have their path, the rest is counted."""
    payload = b'{"percent":1.0,"cells":[' + b",".join([b'"x"'] * bad) + b"]}"
    error = refusal(lambda: unpack(record(payload), Battery, max_bytes=100_000))
    assert said in str(error)
    assert str(error).count("expected a valid integer") == listed
    assert len(error.paths) == paths


def test_the_size_is_checked_before_anything_is_decoded() -> None:
    """One byte more than the limit is refused on both sides; the limit itself is not."""
    payload = pack(Battery(80.0))["payload"]
    size = len(payload)
    assert unpack(record(payload), Battery, max_bytes=size) == Battery(80.0)
    for work in (
        lambda: pack(Battery(80.0), max_bytes=size - 1),
        lambda: unpack(record(payload), Battery, max_bytes=size - 1),
        lambda: unpack(record(b"\xff" * 65_537), Battery),  # not even JSON
    ):
        assert refusal(work).code is MetadataCode.TOO_LARGE


def test_what_cannot_be_read_again_does_not_leave_the_client() -> None:
    """A list that holds itself, an unknown object in a field of any type."""
    loop: list[Any] = []
    loop.append(loop)
    for extra in (loop, object()):
        error = refusal(lambda extra=extra: pack(replace(EVERYTHING, extra=extra)))  # type: ignore[misc]
        assert error.code is MetadataCode.MALFORMED


@dataclass
class Unversioned:
    schema_version: ClassVar[Any] = "2"


@dataclass
class Tensors:
    weights: torch.Tensor


@dataclass
class Misspelt:
    seconds: flaot  # type: ignore[name-defined]  # noqa: F821


class Plain:
    pass


@pytest.mark.parametrize(
    ("cls", "mistake"),
    [
        (Plain, "Plain: expected a dataclass"),
        (int, "int: expected a dataclass"),
        (Battery(1.0), r"Battery Battery\(.*: expected a dataclass"),  # an object, not its class
        ([], r"list \[\]: expected a dataclass"),
        (Unversioned, "schema_version: expected a ClassVar"),
        (Tensors, "Tensors: cannot be metadata: .*use types that JSON can carry"),
        (Misspelt, "Misspelt: cannot be metadata: .*flaot"),
    ],
)
def test_a_class_that_cannot_be_a_contract_is_the_programmers_mistake(
    cls: type[Any], mistake: str
) -> None:
    """A ConfigError, at the start of the run: no client is to blame."""
    for work in (lambda: schema_of(cls), lambda: unpack(record(b"{}"), cls)):
        with pytest.raises(ConfigError, match=mistake):
            work()


def test_a_codec_that_does_not_exist_is_refused() -> None:
    """On both sides, before anything else."""
    for work in (
        lambda: pack(Battery(1.0), codec="yaml"),  # type: ignore[arg-type]
        lambda: unpack(record(b"{}"), Battery, codec="yaml"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError, match="codec: expected 'json' or 'pickle', got 'yaml'"):
            work()


# -- what may leave a site


def context(**node_config: Any) -> Context:
    return Context(1, 2, {"partition-id": 3, **node_config}, RecordDict(), {})


@pytest.mark.parametrize(
    ("allow", "payload"),
    [
        ("percent,cells", b'{"percent":80.0,"cells":[1]}'),
        (" cells , unknown", b'{"cells":[1]}'),
        ("", b"{}"),
    ],
)
def test_a_site_sends_only_the_fields_that_it_allows(allow: str, payload: bytes) -> None:
    """``metadata-allow`` of the node's own config; an empty list lets nothing out."""
    sent = pack(Battery(80.0, [1]), context(**{"metadata-allow": allow}))
    assert sent["payload"] == payload


def test_without_a_list_all_fields_are_sent() -> None:
    """A context that says nothing changes nothing, and does not travel."""
    assert pack(Battery(80.0, [1]), context()) == pack(Battery(80.0, [1]))


def test_what_a_site_keeps_back_takes_its_default_or_is_refused() -> None:
    """``cells`` has a default, ``percent`` has none."""
    site = context(**{"metadata-allow": "percent"})
    assert unpack(pack(Battery(80.0, [1]), site), Battery) == Battery(80.0, [])
    site = context(**{"metadata-allow": "cells"})
    error = refusal(lambda: unpack(pack(Battery(80.0, [1]), site), Battery))
    assert (error.code, error.paths) == (MetadataCode.WITHHELD, ("percent",))


def test_a_list_that_cannot_be_kept_ends_the_client_not_the_secret() -> None:
    """A number as the list, and pickle, which would send the whole object."""
    site = context(**{"metadata-allow": 3})
    with pytest.raises(ConfigError, match="metadata-allow: expected names with commas, got int 3"):
        pack(Battery(80.0), site)
    site = context(**{"metadata-allow": "percent"})
    with pytest.raises(ConfigError, match="metadata-allow: pickle sends whole objects"):
        pack(Battery(80.0), site, codec="pickle")


# -- pickle


class Attack:
    """What runs code when it is unpickled: it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.open, (str(self.path), os.O_CREAT)


def attack(path: Path) -> bytes:
    return pickle.dumps(Attack(path))


def test_pickle_from_a_client_runs_nothing(tmp_path: Path) -> None:
    """The same bytes as pickle, as json, and at a server that forgot to trust: no file."""
    made = tmp_path / "made"
    payload = attack(made)
    assert refusal(lambda: unpack(record(payload, codec="pickle"), Battery)).code == "malformed"
    assert refusal(lambda: unpack(record(payload), Battery)).code == "malformed"
    with pytest.raises(ConfigError, match="trust-pickle"):
        unpack(record(payload, codec="pickle"), Battery, codec="pickle")
    assert not made.exists()


def test_a_server_that_trusts_pickle_is_owned_by_its_clients(tmp_path: Path) -> None:
    """The danger is real: the same bytes make the file where the operator asked for it."""
    made = tmp_path / "made"
    packed = record(attack(made), codec="pickle")
    error = refusal(lambda: unpack(packed, Battery, codec="pickle", trust_pickle=True))
    assert made.exists()
    assert error.code == "invalid"  # what came out of it is no Battery


def test_trusted_pickle_is_checked_like_json() -> None:
    """It round-trips, and an object with a wrong field is refused by its path."""
    trust: dict[str, Any] = {"codec": "pickle", "trust_pickle": True}
    assert unpack(pack(EVERYTHING, codec="pickle"), Everything, **trust) == EVERYTHING
    wrong = record(pickle.dumps(Battery("full")), codec="pickle")  # type: ignore[arg-type]
    assert refusal(lambda: unpack(wrong, Battery, **trust)).paths == ("percent",)
    cut = record(pickle.dumps(Battery(1.0))[:-5], codec="pickle")
    assert refusal(lambda: unpack(cut, Battery, **trust)).code == "malformed"


def test_a_server_of_pickle_takes_no_json() -> None:
    """Nothing is guessed from what came."""
    work = lambda: unpack(record(b"{}"), Battery, codec="pickle", trust_pickle=True)  # noqa: E731
    assert "this server reads pickle" in str(refusal(work))
