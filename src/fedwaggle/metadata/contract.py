"""Pack a dataclass into a Flower record, and unpack the record into the same dataclass.

The client packs an object, the server unpacks it against the class that it names itself::

    {"schema": "TrainProcessMetadata", "version": 1, "payload": b'{"training_time":2.5,...}'}

Both sides check every field, strictly and by the annotations of the class, with pydantic. What
a client sends is data: it never chooses a class, and it never runs code. The one exception is
the pickle codec, and only the server's operator can allow that. ``docs/metadata.md`` states which
types there are, how a class may change, and what each refusal means.

References
----------
pydantic, strict mode: https://docs.pydantic.dev/latest/concepts/strict_mode/
pickle, "Warning": https://docs.python.org/3/library/pickle.html
"""

from __future__ import annotations

import json
import pickle  # opt-in, and refused unless the operator trusts it
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, cast, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from typing_extensions import TypeAliasType

from fedwaggle.errors import ConfigError, MetadataCode, MetadataError
from fedwaggle.metadata.refusal_costs import check_refusal_cost, errors_per_value
from fedwaggle.metadata.refusals import refusal_of
from fedwaggle.metadata.scalars import with_python_scalars
from fedwaggle.site.policy import ALLOW_KEY, POLICY_KEY, MetadataRules, read_site_policy
from fedwaggle.site.rules import WITHHELD_KEY, sift_metadata
from fedwaggle.text import printable, shown

if TYPE_CHECKING:  # `waggle report` needs no Flower, and Flower takes half a second to import
    from flwr.app import ConfigRecord, Context

__all__ = [
    "DEFAULT_MAX_BYTES",
    "PICKLE_WARNING",
    "Codec",
    "pack",
    "schema_of",
    "unpack",
]

DEFAULT_MAX_BYTES = 65_536
"""Largest payload that is packed or decoded, unless the caller sets another: 64 KiB."""

Codec = Literal["json", "pickle"]

PICKLE_WARNING = (
    "metadata-codec is pickle and trust-pickle is true: every client can run any code in this "
    "server process. Use metadata-codec = json unless every client is yours."
)
"""What a server that trusts pickle logs when it starts."""

M = TypeVar("M")
_T = TypeVar("_T")

_KEYS = {"schema": str, "version": int, "payload": bytes}

_CONFIG = ConfigDict(
    strict=True,
    allow_inf_nan=False,
    revalidate_instances="always",  # an instance may hold anything: dataclasses do not check
    ser_json_inf_nan="constants",  # where a field allows NaN, it must come back as NaN
    ser_json_bytes="base64",
    val_json_bytes="base64",
    serialize_by_alias=True,
    validate_by_alias=True,
    validate_by_name=True,
)


def pack(
    obj: object,
    context: Context | None = None,
    *,
    codec: Codec = "json",
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> ConfigRecord:
    """Check a dataclass instance and turn it into a record for ``content["metadata"]``.

    Parameters
    ----------
    obj : object
        An instance of a dataclass. Scalars of NumPy and torch in it are sent as ``bool``, ``int``
        or ``float``.
    context : Context | None (default: None)
        The client's context. Its ``node_config`` may hold ``metadata-allow``, the fields that may
        leave, separated by commas, or ``site-policy``, the path of a file with rules for each.
    codec : {"json", "pickle"} (default: "json")
        How the payload is encoded. The server must expect the same.
    max_bytes : int (default: 65_536)
        Largest payload that may be sent.

    Returns
    -------
    ConfigRecord
        ``schema``, ``version`` and ``payload``; ``codec`` if it is pickle; ``withheld`` and
        ``changed``, names of fields, if the site's policy kept some back or made them less exact.

    Raises
    ------
    MetadataError
        If a field has a wrong value (the error has the path of each), if the object cannot be
        encoded so that it can be read again, or if the payload is too large.
    ConfigError
        If ``obj`` is no instance of a dataclass, if its class cannot be a contract, if there is
        no such codec, or if the site's policy cannot be read or comes with pickle.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Battery:
    ...     percent: float
    >>> pack(Battery(80.0))["payload"]
    b'{"percent":80.0}'
    """
    from flwr.app import ConfigRecord

    if codec not in get_args(Codec):
        raise ConfigError([f"codec: expected 'json' or 'pickle', got {codec!r}"])
    contract = _contract(type(obj))
    rules = _metadata_rules(context, codec)
    encoded = _contained(lambda: _encode(obj, contract, codec, rules), contract)
    _check_size(encoded.payload, contract, max_bytes)
    record = ConfigRecord(
        {
            "schema": contract.schema,
            "version": contract.version,
            "payload": encoded.payload,
            **encoded.names,
        }
    )
    if codec == "pickle":
        record["codec"] = codec
    return record


def unpack(
    record: ConfigRecord,
    cls: type[M],
    *,
    codec: Codec = "json",
    trust_pickle: bool = False,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> M:
    """Read a client's record as an instance of ``cls``.

    Fields that ``cls`` does not know are ignored. Fields that are not there take their default.

    Parameters
    ----------
    record : ConfigRecord
        What came under ``content["metadata"]``. It may hold anything.
    cls : type[M]
        The dataclass that the server expects.
    codec : {"json", "pickle"} (default: "json")
        What the server expects. Nothing is guessed from the record.
    trust_pickle : bool (default: False)
        Whether clients may run code here, which is what unpickling lets them do.
    max_bytes : int (default: 65_536)
        Largest payload that is decoded.

    Returns
    -------
    M
        A checked instance of ``cls``.

    Raises
    ------
    MetadataError
        If the record is refused: ``code`` states why, ``paths`` names the bad fields. No other
        exception comes out, whatever the record holds.
    ConfigError
        If the server asks for what cannot work: pickle without ``trust_pickle``, an unknown
        codec, or a class that cannot be a contract. No record can cause this.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Battery:
    ...     percent: float
    >>> unpack(pack(Battery(80.0)), Battery)
    Battery(percent=80.0)
    """
    if codec not in get_args(Codec):
        raise ConfigError([f"codec: expected 'json' or 'pickle', got {codec!r}"])
    if codec == "pickle" and not trust_pickle:
        message = "trust-pickle: metadata-codec = pickle lets every client run code on the server"
        raise ConfigError([f"{message}; set trust-pickle = true (trust_pickle=True), or use json"])
    contract = _contract(cls)
    payload = _open_envelope(record, contract, codec)
    _check_size(payload, contract, max_bytes)
    try:
        found: M = _contained(lambda: _decode(payload, contract, codec), contract, len(payload))
    except MetadataError as error:
        if not (missing := _withheld_among(error.paths, record)):
            raise
        refusal = MetadataError(
            MetadataCode.WITHHELD,
            f"{contract.schema}: the site's policy withholds {', '.join(missing)}, which the "
            "server needs; give each a default, or ask the site",
            missing,
        )
    else:
        return found
    raise refusal  # out here it does not keep the first error alive


def _withheld_among(paths: Sequence[str], record: ConfigRecord) -> list[str]:
    """Return those of the bad fields that a client reports as withheld by its site."""
    named = record.get(WITHHELD_KEY)
    withheld = {name for name in named if isinstance(name, str)} if isinstance(named, list) else ()
    return [path for path in paths if path in withheld]


def schema_of(cls: type[Any]) -> tuple[str, int]:
    """Return the schema name and the version of a class, once it is known to be a contract.

    The name is the class's own. The version is its ``schema_version``, or 1.

    Raises
    ------
    ConfigError
        If ``cls`` is no dataclass, if its version is not a whole number above 0, or if a field
        has a type that cannot travel.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Battery:
    ...     percent: float
    >>> schema_of(Battery)
    ('Battery', 1)
    """
    contract = _contract(cls)
    return contract.schema, contract.version


@dataclass(frozen=True)
class _Contract:
    """What both sides know of a class."""

    schema: str
    version: int
    adapter: TypeAdapter[Any]
    most_errors: int  # that one value can have


def _contract(cls: type[Any]) -> _Contract:
    """Return the contract that a class is; raise if it is none."""
    if not isinstance(cls, type) or not is_dataclass(cls):
        name = cls.__name__ if isinstance(cls, type) else shown(cls)
        raise ConfigError([f"{name}: expected a dataclass; decorate the class with @dataclass"])
    return _made_contract(cls)


@cache
def _made_contract(cls: type[Any]) -> _Contract:
    version = getattr(cls, "schema_version", 1)
    if type(version) is not int or version < 1:
        raise ConfigError(
            [f"{cls.__name__}.schema_version: expected a ClassVar[int] above 0, got {version!r}"]
        )
    adapter = _adapter(cls)
    return _Contract(cls.__name__, version, adapter, errors_per_value(adapter.core_schema))


def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    """Return what checks, encodes and decodes instances of ``cls``."""
    try:
        # A TypeAdapter takes no config for a bare dataclass. Under an alias it does, and plain
        # dataclasses further down inherit it. The user's class stays as it is.
        alias = cast("type[Any]", TypeAliasType(cls.__name__, cls))
        adapter = TypeAdapter(alias, config=_CONFIG)
        adapter.rebuild()  # an unknown name in an annotation shows only now
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        reason = printable(str(error).partition("\n")[0], 300)
        fix = "use types that JSON can carry, and define them at the top of a module"
        raise ConfigError([f"{cls.__name__}: cannot be metadata: {reason} ({fix})"]) from error
    return adapter


def _metadata_rules(context: Context | None, codec: Codec) -> MetadataRules:
    """Return the site's rules for the fields of its metadata."""
    rules = read_site_policy(context.node_config if context else {}).metadata
    if codec == "pickle" and rules != MetadataRules():
        key = POLICY_KEY if context and POLICY_KEY in context.node_config else ALLOW_KEY
        raise ConfigError([f"{key}: pickle sends whole objects; use metadata-codec = json"])
    return rules


class _Encoded(NamedTuple):
    """A payload, and the names of what a site's policy kept back or changed."""

    payload: bytes
    names: Mapping[str, list[str]] = MappingProxyType({})


def _encode(obj: object, contract: _Contract, codec: Codec, rules: MetadataRules) -> _Encoded:
    checked = contract.adapter.validate_python(with_python_scalars(obj))
    if codec == "pickle":
        return _Encoded(pickle.dumps(checked))
    payload = contract.adapter.dump_json(checked, warnings="error")
    # What cannot be read again (a tuple as a key, say) is the client's mistake: it learns here.
    _decode(payload, contract, codec)
    if rules == MetadataRules():
        return _Encoded(payload)
    sifted = sift_metadata(json.loads(payload), rules)
    less = json.dumps(sifted.values, separators=(",", ":")).encode()
    return _Encoded(less, sifted.names())


def _decode(payload: bytes, contract: _Contract, codec: Codec) -> Any:  # noqa: ANN401
    if codec == "pickle":
        # The operator trusts it, and what comes out is checked.
        return contract.adapter.validate_python(pickle.loads(payload))  # noqa: S301
    check_refusal_cost(payload, contract.schema, contract.most_errors)
    return contract.adapter.validate_json(payload)


def _open_envelope(record: ConfigRecord, contract: _Contract, codec: Codec) -> bytes:
    """Return the payload, if the record is one of a class, its version and ``codec``."""
    schema, version = contract.schema, contract.version
    wrong = [
        f"{key}: expected {kind.__name__}, got "
        + (type(record[key]).__name__ if key in record else "nothing")
        for key, kind in _KEYS.items()
        if type(record.get(key)) is not kind  # not isinstance: True would pass as version 1
    ]
    if wrong:
        raise MetadataError(MetadataCode.MALFORMED, f"{', '.join(wrong)}; send pack(...)")
    came = record.get("codec", "json")
    if came != codec:
        raise MetadataError(
            MetadataCode.MALFORMED,
            f"codec: this server reads {codec}, the record says {shown(came)}; set "
            f"metadata-codec = {codec} on the client, and never pickle unless the operator of "
            "the server has set metadata-codec = pickle and trust-pickle = true",
        )
    if record["schema"] != schema:
        raise MetadataError(
            MetadataCode.WRONG_SCHEMA,
            f"schema: expected {schema}, got {shown(record['schema'])}; "
            "client and server must name the same class",
        )
    if record["version"] != version:
        raise MetadataError(
            MetadataCode.WRONG_VERSION,
            f"version of {schema}: this side has {version}, the record has "
            f"{shown(record['version'])}; update the older side",
        )
    return cast("bytes", record["payload"])


def _check_size(payload: bytes, contract: _Contract, max_bytes: int) -> None:
    if len(payload) > max_bytes:
        raise MetadataError(
            MetadataCode.TOO_LARGE,
            f"{contract.schema}: expected a payload of at most {max_bytes} bytes, got "
            f"{len(payload)}; send less, or raise max-metadata-bytes on both sides",
        )


def _contained(work: Callable[[], _T], contract: _Contract, payload_bytes: int = 0) -> _T:
    """Return what ``work`` returns; whatever it raises leaves as a :class:`MetadataError`."""
    try:
        return work()
    except MetadataError:
        raise
    except ValidationError as error:
        refusal = refusal_of(error, contract.schema, payload_bytes)
    except Exception as error:  # noqa: BLE001
        # Bytes of a stranger's meet the user's own __post_init__ and validators here, and
        # pickle: there is no list of what they may raise, MemoryError and RecursionError too.
        reason = printable(f"{type(error).__name__}: {error}", 300)
        refusal = MetadataError(
            MetadataCode.MALFORMED, f"{contract.schema}: cannot be encoded or decoded: {reason}"
        )
    # Raised out here it does not keep the first error alive, which may hold 100 MB.
    raise refusal
