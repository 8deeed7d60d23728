"""Replies that have arrived and were not pulled yet.

What a reply states is read when it arrives. The bytes of large arrays stay in the file in memory
that their sender wrote, until somebody pulls the reply: meanwhile they are the sender's, which
writes no other while too many wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flwr.app import ArrayRecord, Message

from fedwaggle.engine.flwr_private import make_message, record_values
from fedwaggle.engine.local.frames import Frame, Plain
from fedwaggle.engine.local.messages import ArrayFacts, rebuild_arrays, unpack_content

__all__ = ["Arrived", "Reply", "reply_of"]

_READ_AT_ONCE_BYTES = 1_048_576  # below, an open file costs more than the bytes


@dataclass(eq=False)
class Reply:
    """A reply, whose arrays may have to be read yet.

    Attributes
    ----------
    message : Message
        The reply. Its array records are empty until they are read.
    frame : Frame | None
        Where they lie.
    unread : Sequence[tuple[ArrayRecord, list[ArrayFacts]]]
        The empty records and what belongs into each, in the order of the frame.
    """

    message: Message
    frame: Frame | None = None
    unread: Sequence[tuple[ArrayRecord, list[ArrayFacts]]] = ()

    def read(self) -> Message:
        """Return the whole reply, and give the file back to its sender."""
        for record, facts in self.unread:
            assert self.frame is not None  # noqa: S101  # what is unread lies in one
            arrays = rebuild_arrays(facts, self.frame.buffers([size for *_, size in facts]))
            record_values(record).update(record_values(arrays))
        self.close()
        return self.message

    def close(self) -> None:
        """Give the file back to its sender, whether or not it was read."""
        if self.frame is not None:
            self.frame.close()
        self.frame, self.unread = None, ()


def reply_of(metadata: Plain, body: Plain, frame: Frame) -> Reply:
    """Return the reply that a frame holds; it is read already if it is small."""
    unread: list[tuple[ArrayRecord, list[ArrayFacts]]] = []

    def find(facts: list[ArrayFacts]) -> ArrayRecord:
        record = ArrayRecord()
        unread.append((record, facts))
        return record

    reply = Reply(make_message(metadata, content=unpack_content(body, find)), frame, unread)
    if sum(size for _, facts in unread for *_, size in facts) <= _READ_AT_ONCE_BYTES:
        reply.read()
    return reply


class Arrived(dict[str, Reply]):
    """Replies that were not pulled yet, by the id of the message."""

    def __init__(self) -> None:
        super().__init__()
        self._unread: dict[str, Reply] = {}

    def add(self, message_id: str, reply: Reply) -> None:
        """Take in a reply."""
        self[message_id] = reply
        if reply.frame is not None:
            self._unread[message_id] = reply

    def take(self, message_id: str) -> Message:
        """Return a reply, read, and forget it."""
        self._unread.pop(message_id, None)
        return self.pop(message_id).read()

    def drop(self, message_ids: Iterable[str]) -> None:
        """Forget replies that are not wanted."""
        for message_id in message_ids:
            self._unread.pop(message_id, None)
            self.pop(message_id).close()

    def read_all(self) -> None:
        """Read whatever waits, so that no sender is held back."""
        for reply in self._unread.values():
            reply.read()
        self._unread.clear()
