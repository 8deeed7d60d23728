"""All messages between the server's process, the fork server and the workers.

Each is a tuple with a name. It crosses as plain values (:mod:`fedwaggle.engine.local.frames`): its
number in the list below, then its fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from fedwaggle.engine.local.frames import Plain, dump

if TYPE_CHECKING:  # Flower takes half a second to import, and the fork server starts before
    from fedwaggle.engine.local.messages import PackedRecord

__all__ = [
    "Content",
    "Erred",
    "Expired",
    "Failed",
    "Kill",
    "Leave",
    "Letter",
    "LostTask",
    "Ready",
    "Words",
    "decode",
    "encode",
]


class Letter(NamedTuple):
    """To a worker, in shared memory: a message, and the node that is to answer it."""

    metadata: tuple[Any, ...]
    records: list[PackedRecord]
    partition: int
    state: bytes


class Ready(NamedTuple):
    """From a worker: it has the app. From the fork server: why workers cannot share its import."""

    why_spawn: str = ""


class Failed(NamedTuple):
    """From a worker or the fork server: the app cannot be imported, or workers keep ending."""

    text: str


class Content(NamedTuple):
    """From a worker: a reply; the bytes of its arrays follow."""

    task: int
    metadata: tuple[Any, ...]
    records: list[PackedRecord]
    state: bytes | None


class Erred(NamedTuple):
    """From a worker: an error; without metadata it is the engine's, not the client's own reply."""

    task: int
    metadata: tuple[Any, ...] | None
    code: int
    reason: str | None
    state: bytes | None = None


class Expired(NamedTuple):
    """From a worker: the message's time was up before a client began it."""

    task: int


class LostTask(NamedTuple):
    """From the fork server: a worker ended with a task in hand."""

    task: int
    reason: str
    by_signal: bool


class Kill(NamedTuple):
    """To the fork server: end the worker of a slot, if it still has this task."""

    slot: int
    task: int


class Leave(NamedTuple):
    """To the fork server: let all workers end in order."""


Words: TypeAlias = Letter | Ready | Failed | Content | Erred | Expired | LostTask | Kill | Leave

_KINDS: tuple[type[Words], ...] = (
    *(Letter, Ready, Failed, Content, Erred, Expired),
    *(LostTask, Kill, Leave),
)
_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}


def encode(words: Words) -> bytes:
    """Return a message as bytes.

    Examples
    --------
    >>> from fedwaggle.engine.local.frames import split
    >>> values, _ = split(encode(Kill(slot=3, task=7)))
    >>> decode(values)
    Kill(slot=3, task=7)
    """
    return dump((_NUMBERS[type(words)], *words))


def decode(values: Plain) -> Words:
    """Return the message that plain values are."""
    number, *fields = values
    return cast("Words", _KINDS[number](*fields))
