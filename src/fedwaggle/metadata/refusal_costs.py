"""What it may cost to refuse a payload, found out before that is tried.

pydantic gives every error a copy of the JSON around it. A payload of 1 MiB that lacks the 100
fields of a class becomes 100 Python objects of 40 MB, and one that is nested 100 deep becomes
them at every level. So one client could cost a server gigabytes. With e errors that one value can
have, and s(v) bytes that value v takes as a Python object, the copies together take at most ::

    e * sum(s(v) for every list and object v)

A payload for which that is too much is refused as too large. Payloads of the usual kind (numbers,
a few levels) are found in it by counting brackets and commas, without decoding them.
"""

from __future__ import annotations

import sys
from typing import Any

from pydantic_core import from_json

from fedwaggle.errors import MetadataCode, MetadataError

__all__ = ["check_refusal_cost", "errors_per_value"]

_MOST_BYTES = 256 * 1_048_576
_DEEPEST = 200  # levels: pydantic refuses more, without a copy
_VALUE_BYTES = 300  # at most what a value takes: an object with one key takes about as much
_CHARACTER_BYTES = 4


def errors_per_value(core_schema: Any) -> int:  # noqa: ANN401  # pydantic's nested dictionaries
    """Return how many errors one value can have at most, by all parts of a schema together.

    Each required field that is missing is an error of the object around it, each choice of a
    union one of the value that fits none, each missing item one of the tuple.

    Parameters
    ----------
    core_schema : CoreSchema
        ``TypeAdapter(...).core_schema``.
    """
    if isinstance(core_schema, list | tuple):
        return sum(errors_per_value(part) for part in core_schema)
    if not isinstance(core_schema, dict):
        return 0
    own = 0
    match core_schema.get("type"):
        case "union":
            own = len(core_schema["choices"])
        case "tuple":
            own = len(core_schema["items_schema"])
        case "arguments":  # of a named tuple, before pydantic 2.14
            own = len(core_schema["arguments_schema"])
        case str(kind) if kind.endswith("-field"):  # of a dataclass, a model, a named tuple ...
            own = core_schema["schema"]["type"] != "default"
    return own + sum(errors_per_value(part) for part in core_schema.values())


def check_refusal_cost(payload: bytes, schema: str, most_errors: int) -> None:
    """Raise if refusing a payload could take too much memory.

    Parameters
    ----------
    payload : bytes
        JSON, or what a client calls so.
    schema : str
        The name of the class.
    most_errors : int
        What :func:`errors_per_value` reports of the class.

    Raises
    ------
    MetadataError
        ``too-large``, if the errors could take more than 256 MiB.
    """
    containers = payload.count(b"[") + payload.count(b"{")
    values = containers + payload.count(b",") + 1
    value_bytes = values * _VALUE_BYTES + len(payload) * _CHARACTER_BYTES
    if most_errors * value_bytes * min(containers, _DEEPEST) <= _MOST_BYTES:
        return
    try:
        _, copied = _bytes_of(from_json(payload))
    except ValueError:  # no JSON: refused at once, by whoever decodes it
        return
    if most_errors * copied > _MOST_BYTES:
        raise MetadataError(
            MetadataCode.TOO_LARGE,
            f"{schema}: up to {values} values are too many, nested as they are, for a class with "
            f"{most_errors} required fields and choices; send fewer, nest less, or give fields "
            "defaults",
        )


def _bytes_of(value: object) -> tuple[int, int]:
    """Return the bytes of a value with all inside it, and their sum over it and all inside it."""
    if isinstance(value, dict):
        inside: Any = value.values()
        size = sys.getsizeof(value) + sum(map(sys.getsizeof, value))
    elif isinstance(value, list):
        inside, size = value, sys.getsizeof(value)
    else:
        return sys.getsizeof(value), 0
    below = 0
    for part in inside:
        part_bytes, part_copied = _bytes_of(part)
        size += part_bytes
        below += part_copied
    return size, size + below
