"""What a client's metadata says, field by field, without knowing its class.

The reader of a run has the JSON of the metadata, not the dataclass. So a field is known by its
values: a number, a boolean, or a history (numbers in an order: a list, or an object whose
keys count, such as ``{"epoch_1": 0.9, "epoch_2": 0.7}``). Nested objects give dotted names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

from fedwaggle.runs.report.stats import as_float

__all__ = ["Fact", "FieldTable", "facts"]

Fact: TypeAlias = bool | float | list[float]

# An object may have keys of a client's own choice, so there is a limit to what is looked at.
_MOST_FACTS = 64  # of one reply
_MOST_FIELDS = 64  # of one run
_DEEPEST = 4

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_COUNTING_KEY = re.compile(r"(?:.*[^0-9])?([0-9]{1,15})", re.DOTALL)


def facts(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Fact]]:
    """Yield the fields that can be drawn: dotted name and value.

    Parameters
    ----------
    metadata : Mapping[str, Any]
        Decoded metadata, as an event holds it.

    Yields
    ------
    tuple[str, bool | float | list[float]]
        Text, absent values and empty histories are left out.

    Examples
    --------
    >>> list(facts({"converged": True, "gpu": {"heat": 71}, "losses": {"epoch_1": 0.9}, "os": "x"}))
    [('converged', True), ('gpu.heat', 71.0), ('losses', [0.9])]
    """
    for count, fact in enumerate(_walk(metadata, "", 1)):
        if count == _MOST_FACTS:
            return
        yield fact


def _walk(values: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Fact]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, bool):
            yield name, value
        elif (number := _number(value)) is not None:
            yield name, number
        elif (history := _history(value)) is not None:
            yield name, history
        elif isinstance(value, dict) and depth < _DEEPEST:
            yield from _walk(value, f"{name}.", depth + 1)


def _number(value: object) -> float | None:
    if isinstance(value, str):
        return _NOT_FINITE.get(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return as_float(value)


def _history(value: object) -> list[float] | None:
    if isinstance(value, dict):
        order = _order(tuple(value))
        if order is None:
            return None
        value = [value[key] for key in order]
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


@dataclass
class FieldTable:
    """The fields of all updates of a run, as columns.

    Attributes
    ----------
    numbers : dict[str, dict[int, float]]
        Field to row to value.
    booleans : dict[str, dict[int, bool]]
        The same for yes and no.
    histories : dict[str, dict[int, list[float]]]
        The same for histories.
    """

    numbers: dict[str, dict[int, float]] = field(default_factory=dict)
    booleans: dict[str, dict[int, bool]] = field(default_factory=dict)
    histories: dict[str, dict[int, list[float]]] = field(default_factory=dict)

    def add(self, row: int, metadata: Mapping[str, Any]) -> None:
        """Note what one client said; a field that comes after the 64th new name is left out."""
        for name, value in facts(metadata):
            if isinstance(value, bool):
                self._put(self.booleans, name, row, value)
            elif isinstance(value, list):
                self._put(self.histories, name, row, value)
            else:
                self._put(self.numbers, name, row, value)

    def _put(self, table: dict[str, dict[int, Any]], name: str, row: int, value: Fact) -> None:
        if name in table or len(table) < _MOST_FIELDS:
            table.setdefault(name, {})[row] = value
