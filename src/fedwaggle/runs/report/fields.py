"""The fields of all updates of a run, as columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedwaggle.runs.metadata_fields import Chartable, chartable_fields, fields

__all__ = ["FieldTable"]

_MOST_FIELDS = 64  # of one run
_MOST_TEXT_FIELDS = 16
_MOST_TEXTS = 200  # of one field
_LONGEST_TEXT = 100  # characters


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
    texts : dict[str, Counter[str]]
        Field to how often each text was reported.
    """

    numbers: dict[str, dict[int, float]] = field(default_factory=dict)
    booleans: dict[str, dict[int, bool]] = field(default_factory=dict)
    histories: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    texts: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, row: int, metadata: Mapping[str, Any]) -> None:
        """Note what one client said; a field that comes after the 64th new name is left out."""
        for name, value in chartable_fields(metadata):
            if isinstance(value, bool):
                self._put(self.booleans, name, row, value)
            elif isinstance(value, list):
                self._put(self.histories, name, row, value)
            else:
                self._put(self.numbers, name, row, value)
        for name, said in fields(metadata):
            if isinstance(said, str):
                self._count(name, said[:_LONGEST_TEXT])

    def _count(self, name: str, text: str) -> None:
        if name not in self.texts and len(self.texts) == _MOST_TEXT_FIELDS:
            return
        counts = self.texts.setdefault(name, Counter())
        if text in counts or len(counts) < _MOST_TEXTS:
            counts[text] += 1

    def _put(self, table: dict[str, dict[int, Any]], name: str, row: int, value: Chartable) -> None:
        if name in table or len(table) < _MOST_FIELDS:
            table.setdefault(name, {})[row] = value
