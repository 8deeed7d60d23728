"""The fields of a client's metadata, by dotted name, without knowing its class.

A record has the JSON of the metadata, not the dataclass. So a field is known by its values: a
number, a boolean, a text, or a history (numbers in an order: a list, or an object whose keys
count steps, such as ``{"epoch_1": 0.9, "epoch_2": 0.7}``). Other objects give dotted names. The
report, the trackers and the tables of pandas all take their fields from here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from fedwaggle.numbers import as_float

__all__ = ["Chartable", "chartable_fields", "fields"]

Chartable: TypeAlias = bool | float | list[float]

# An object may have keys of a client's own choice, so there is a limit to what is looked at.
_MOST_CHARTABLE = 64  # fields of one reply
_DEEPEST = 4

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_COUNTING_KEY = re.compile(
    r"(?:epoch|step|batch|iteration|iter|round)s?[ _-]?([0-9]{1,15})", re.IGNORECASE
)


def fields(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every field: dotted name and value.

    Parameters
    ----------
    metadata : Mapping[str, Any]
        Decoded metadata, as an event holds it.

    Yields
    ------
    tuple[str, Any]
        Values are as they are recorded, but for ``NaN`` and the infinities, which JSON has as
        texts and which are floats here. A history is one field.

    Examples
    --------
    >>> dict(fields({"gpu": {"heat": 71, "name": "x"}, "losses": {"epoch_1": 0.9}}))
    {'gpu.heat': 71, 'gpu.name': 'x', 'losses': {'epoch_1': 0.9}}
    """
    return _walk(metadata, "", 1)


def chartable_fields(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Chartable]]:
    """Yield the fields that can be drawn, at most 64 of them: dotted name and value.

    Parameters
    ----------
    metadata : Mapping[str, Any]
        Decoded metadata, as an event holds it.

    Yields
    ------
    tuple[str, bool | float | list[float]]
        Text, absent values and empty histories are left out. A history is in the order of its
        keys.

    Examples
    --------
    >>> heat = {"converged": True, "gpu": {"heat": 71}, "losses": {"epoch_1": 0.9}, "os": "x"}
    >>> list(chartable_fields(heat))
    [('converged', True), ('gpu.heat', 71.0), ('losses', [0.9])]
    """
    count = 0
    for name, value in fields(metadata):
        drawn = _chartable(value)
        if drawn is not None:
            yield name, drawn
            count += 1
        if count == _MOST_CHARTABLE:
            return


def _walk(values: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and depth < _DEEPEST and _order(tuple(value)) is None:
            yield from _walk(value, f"{prefix}{key}.", depth + 1)
        else:
            yield f"{prefix}{key}", _NOT_FINITE.get(value, value) if _is_text(value) else value


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _chartable(value: object) -> Chartable | None:
    if isinstance(value, bool):
        return value
    number = _number(value)
    return _history(value) if number is None else number


def _number(value: object) -> float | None:
    if isinstance(value, str):
        return _NOT_FINITE.get(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return as_float(value)


def _history(value: object) -> list[float] | None:
    if isinstance(value, dict):
        order = _order(tuple(value))
        value = [value[key] for key in order or ()]
    if not isinstance(value, list) or not value:
        return None
    numbers = [_number(item) for item in value]
    return None if None in numbers else [n for n in numbers if n is not None]


@lru_cache(maxsize=16)  # most replies of a run have the same keys
def _order(keys: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the keys in the order in which they count, or None if not all of them do."""
    steps = {key: _COUNTING_KEY.fullmatch(key) for key in keys}
    numbers = {key: int(step[1]) for key, step in steps.items() if step}
    return tuple(sorted(keys, key=numbers.__getitem__)) if len(numbers) == len(keys) else None
