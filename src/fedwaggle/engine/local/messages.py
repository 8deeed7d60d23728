"""Messages as plain values, with the bytes of their arrays beside.

Values of other types that Flower lets into a record (a NumPy float is a float) are made plain
first, as Flower's own transport does. The bytes of arrays are never copied into the plain form:
they follow it, or they lie in a parcel that all workers read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, cast

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)

from fedwaggle.engine.app import ConfigValue
from fedwaggle.engine.flwr_private import (
    make_array,
    make_record,
    metadata_values,
    record_values,
    state_from_bytes,
    state_to_bytes,
)
from fedwaggle.engine.local.frames import Buffer, Plain

__all__ = [
    "ArrayFacts",
    "PackedRecord",
    "array_key",
    "describe_arrays",
    "pack_content",
    "pack_metadata",
    "pack_node",
    "rebuild_arrays",
    "unpack_content",
    "unpack_node",
]

PackedRecord: TypeAlias = tuple[str, str, Any]  # name, kind, values
ArrayFacts: TypeAlias = tuple[
    str, str, tuple[int, ...], str, int
]  # key, dtype, shape, stype, bytes

_NODE_CONFIG = "fedwaggle.node-config"  # a record beside the node's own
_SCALARS = frozenset((bool, int, float, str, bytes))
_KINDS: dict[str, type[MetricRecord] | type[ConfigRecord]] = {
    "metrics": MetricRecord,
    "config": ConfigRecord,
}


def pack_content(content: RecordDict, place: Callable[[ArrayRecord], Any]) -> list[PackedRecord]:
    """Return the records of a message as plain values.

    Parameters
    ----------
    content : RecordDict
        The records. They stay as they are.
    place : Callable[[ArrayRecord], Any]
        Puts the bytes of arrays where the other side finds them, and returns plain values
        that say where.

    Raises
    ------
    TypeError
        If a record holds something that Flower cannot send.
    """
    packed: list[PackedRecord] = []
    for name, record in record_values(content).items():
        if isinstance(record, ArrayRecord):
            packed.append((str(name), "arrays", place(record)))
        else:
            kind = "metrics" if isinstance(record, MetricRecord) else "config"
            values = {str(k): _plain(v) for k, v in record_values(record).items()}
            packed.append((str(name), kind, values))
    return packed


def unpack_content(
    packed: Iterable[PackedRecord], find: Callable[[Any], ArrayRecord]
) -> RecordDict:
    """Return the records that :func:`pack_content` wrote, each a fresh object.

    Parameters
    ----------
    packed : Iterable[PackedRecord]
        The plain values. The records are built around them: use them once.
    find : Callable[[Any], ArrayRecord]
        Undoes ``place``.
    """
    content = RecordDict()
    records = record_values(content)
    for name, kind, values in packed:
        records[name] = find(values) if kind == "arrays" else make_record(_KINDS[kind], values)
    return content


def pack_metadata(message: Message) -> tuple[Any, ...]:
    """Return a message's metadata as plain values, in the order of ``METADATA_FIELDS``."""
    return tuple([None if v is None else _plain(v) for v in metadata_values(message)])


def pack_node(context: Context, node_config: Mapping[str, ConfigValue]) -> bytes:
    """Return what a node keeps for its next message: its state, and its config if it changed it.

    Parameters
    ----------
    context : Context
        The context as the client left it.
    node_config : Mapping[str, ConfigValue]
        What the node's config is if no client changes it.

    Raises
    ------
    TypeError
        If the config holds something that is no number, text or bool.
    """
    if context.node_config == node_config:
        return state_to_bytes(context.state)
    changed = ConfigRecord({**context.node_config})
    return state_to_bytes(RecordDict({**context.state, _NODE_CONFIG: changed}))


def unpack_node(
    data: bytes, node_config: Mapping[str, ConfigValue]
) -> tuple[RecordDict, dict[str, Any]]:
    """Return a node's state and its config, from what :func:`pack_node` wrote."""
    state = state_from_bytes(data)
    changed = state.pop(_NODE_CONFIG, node_config)
    return state, dict(changed)


def describe_arrays(record: ArrayRecord) -> tuple[list[ArrayFacts], list[Buffer]]:
    """Return what there is to know of a record's arrays, and the bytes of each, in one order."""
    facts: list[ArrayFacts] = []
    buffers: list[Buffer] = []
    for key, array in record_values(record).items():
        data = array.data
        facts.append((str(key), str(array.dtype), _sizes(array), str(array.stype), len(data)))
        buffers.append(data)
    return facts, buffers


def rebuild_arrays(facts: Iterable[ArrayFacts], buffers: Iterable[bytes]) -> ArrayRecord:
    """Return a record of fresh arrays around the given bytes."""
    values = {
        key: make_array(dtype, shape, stype, data)
        for (key, dtype, shape, stype, _), data in zip(facts, buffers, strict=True)
    }
    return cast("ArrayRecord", make_record(ArrayRecord, values))


def array_key(record: ArrayRecord) -> tuple[Any, ...]:
    """Return what differs between two records with different arrays, without reading the arrays.

    Bytes do not change, so the same bytes objects under the same names are the same arrays;
    whoever keeps this key has to keep the record's bytes alive too. An array whose data is not
    ``bytes`` could change, and makes a key that equals no other.
    """
    return tuple(
        (key, array.dtype, tuple(array.shape), array.stype, id(array.data))
        if type(array.data) is bytes
        else object()
        for key, array in record_values(record).items()
    )


def _sizes(array: Array) -> tuple[int, ...]:
    return tuple(int(size) for size in array.shape)


def _plain(value: Plain) -> Plain:
    """Return a record's value as one of Python's own types."""
    if type(value) in _SCALARS:
        return value
    if isinstance(value, list):
        if _SCALARS.issuperset(map(type, value)):
            return value if type(value) is list else list(value)
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return str.__str__(value)  # the text itself, whatever a subclass prints
    if isinstance(value, bytes):
        return bytes(value)
    for number in (bool, int, float):
        if isinstance(value, number):
            return number(value)
    raise TypeError(f"expected int, float, str, bytes or bool, got {type(value).__name__}")
