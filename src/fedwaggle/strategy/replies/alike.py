"""Failures that are the same one: a mistake of the app, which every client runs into.

Two reasons are alike if they differ only in numbers, such as a client's own, and in addresses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from fedwaggle.strategy.codes import Code
from fedwaggle.strategy.updates import Quarantined

__all__ = ["Repeats", "failed_alike", "in_words"]

# What comes over single clients, and may pass; the same of all of them is chance.
_CHANCE = {
    Code.CLIENT_CRASHED,
    Code.CLIENT_UNAVAILABLE,
    Code.MESSAGE_LOST,
    Code.NOT_FINITE,
}

_MOST_KINDS = 1_000

_Kind: TypeAlias = tuple[str, str]  # code, reason without what is a client's own

_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+(?:\.\d+)?")
_RAISED = re.compile(r"<class '([\w.]+)'>:<'(.*)'>", re.DOTALL)


class Repeats:
    """Counts refused replies by what is wrong with them, round by round."""

    def __init__(self) -> None:
        self._known: set[_Kind] = set()
        self._words: dict[_Kind, str] = {}
        self._count: Counter[_Kind] = Counter()  # of the round

    def is_first(self, bad: Quarantined) -> bool:
        """Count a reply; return whether none like it was refused before."""
        kind = _kind_of(bad)
        self._count[kind] += 1
        if kind in self._known:
            self._words.setdefault(kind, f"{in_words(bad.reason)} ({bad.code})")
            return False
        if len(self._known) < _MOST_KINDS:  # clients choose the words of what they raise
            self._known.add(kind)
        return True

    def take(self) -> list[str]:
        """Return a line for each kind that was not new each time, and begin another round."""
        lines = [
            f"{words} x {self._count[kind]} client{'s' * (self._count[kind] > 1)}"
            for kind, words in self._words.items()
        ]
        self._words.clear()
        self._count.clear()
        return lines


def failed_alike(quarantined: Sequence[Quarantined], sampled: int) -> str:
    """Return the error that all clients of a round have in common; empty if there is none.

    Parameters
    ----------
    quarantined : Sequence[Quarantined]
        The replies of the round that were refused.
    sampled : int
        How many clients were asked.
    """
    kinds = {_kind_of(bad) for bad in quarantined}
    if len(kinds) != 1 or sampled != len(quarantined) or quarantined[0].code in _CHANCE:
        return ""
    first = quarantined[0]
    return f"{in_words(first.reason)} ({first.code} x {sampled} client{'s' * (sampled > 1)})"


def in_words(reason: str) -> str:
    """Return a reason with an exception in it as Python shows it.

    Examples
    --------
    >>> in_words("the client says: <class 'ValueError'>:<'expected (3,), got (4,)'>")
    'the client says: ValueError: expected (3,), got (4,)'
    """
    return _RAISED.sub(r"\1: \2", reason)


def _kind_of(bad: Quarantined) -> _Kind:
    nameless = re.sub(rf"\b{re.escape(bad.client)}\b", "#", bad.reason)
    return bad.code, _NUMBER.sub("#", nameless)
