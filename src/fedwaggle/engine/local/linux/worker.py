"""A worker: takes messages from the board, lets the ClientApp answer them, sends the replies.

A worker serves any node: all that a node has is its number and its state, and both come with
the message. What goes wrong in the app becomes an error reply, and the node's state stays as it
was before the message.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from fedwaggle.engine.app import ConfigValue
from fedwaggle.engine.flwr_private import (
    CLIENT_APP_RAISED,
    UNKNOWN_ERROR,
    crash_error,
    make_message,
    set_task_identity,
)
from fedwaggle.engine.local.frames import Buffer, FrameSender, dump, load, read_pieces
from fedwaggle.engine.local.linux.leaving import exit_status
from fedwaggle.engine.local.linux.setup import Setup
from fedwaggle.engine.local.linux.shared_memory import Address, ParcelReader
from fedwaggle.engine.local.linux.task_queue import Board
from fedwaggle.engine.local.messages import (
    ArrayFacts,
    PackedRecord,
    describe_arrays,
    pack_content,
    pack_metadata,
    pack_node,
    rebuild_arrays,
    unpack_content,
    unpack_node,
)
from fedwaggle.engine.local.seeding import RandomNumbers
from fedwaggle.engine.tracebacks import packed
from fedwaggle.text import text_of

__all__ = ["Worker"]

_RUN_CONFIG_CHANGED = (
    "The `run_config` field of the `Context` object cannot be modified (run_id: {})."
)
_MESSAGE_ID, _CREATED_AT, _TTL = 1, 6, 7  # places in a message's metadata


class Worker:
    """One worker process.

    Parameters
    ----------
    setup : Setup
        The run.
    app : ClientApp
        The app, imported.
    board : Board
        Where tasks come from.
    slot : int
        This worker's place on it.
    set_label : Callable[[str], None]
        Sets what stands in front of each printed line.
    """

    def __init__(
        self,
        setup: Setup,
        app: ClientApp,
        board: Board,
        slot: int,
        set_label: Callable[[str], None],
    ) -> None:
        self._setup, self._app, self._board, self._slot = setup, app, board, slot
        self._set_label = set_label
        self._random = None if setup.seed is None else RandomNumbers(setup.seed)
        self._folder = os.open(".", os.O_PATH | os.O_CLOEXEC)
        self._replies = FrameSender(socket.socket(fileno=setup.replies))
        self._parcels = ParcelReader(setup.server_pid)
        self._arrays: dict[Address, tuple[list[ArrayFacts], list[bytes]]] = {}

    def serve(self) -> None:
        """Answer messages until the board is closed; or one, if messages are isolated."""
        self._replies.send(dump((-1, "ready", None, None, None)))
        self._board.arrive(self._slot)
        with self._random or nullcontext():
            while (task := self._board.take(self._slot)) is not None:
                self._answer(task.number, task.letter)
                if self._setup.isolate:  # with the task in hand: at the end of a run it is woken
                    self._replies.wait_until_read()  # nobody else knows how much was sent
                self._board.finish(self._slot)
                if self._setup.isolate:
                    return

    def _answer(self, number: int, letter: Address) -> None:
        fd = self._parcels.open(letter)
        (metadata, records, partition, state), _ = load(fd, letter.offset)
        if metadata[_CREATED_AT] + metadata[_TTL] <= time.time():
            self._replies.send(dump((number, "expired", None, None, None)))
            return
        self._set_label(f"[client {partition}] ")
        os.fchdir(self._folder)  # the client before may have left it
        if self._random is not None:
            # Ids count in the order of pushing; a task's number depends on who was free first.
            self._random.seed_for(int(metadata[_MESSAGE_ID]))
        head, buffers = self._call_app(number, metadata, records, partition, state)
        self._board.stop_clock(self._slot)  # it may have to wait until there is room for a reply
        self._set_label(f"[client {partition}] ")  # ends a line that was left open
        self._replies.send(head, buffers)

    def _call_app(
        self,
        number: int,
        metadata: tuple[Any, ...],
        records: list[PackedRecord],
        partition: int,
        state: bytes,
    ) -> tuple[bytes, list[Buffer]]:
        """Return the reply's head and the bytes of its arrays."""
        used = {Address(*values) for _, kind, values in records if kind == "arrays"}
        self._arrays = {place: arrays for place, arrays in self._arrays.items() if place in used}
        message = make_message(metadata, content=unpack_content(records, self._find_arrays))
        context = self._make_context(message.metadata.dst_node_id, partition, state)
        set_task_identity(self._setup.run_id, context.node_id)
        try:
            reply = self._app(message, context)
            if context.run_config != self._setup.run_config:  # refused as Flower does, in its words
                error = ValueError(_RUN_CONFIG_CHANGED.format(context.run_id))
                return pack_error(number, UNKNOWN_ERROR, error), []
            state_after = pack_node(context, self._node_config(partition))
            return pack_reply(number, message, reply, state_after, state)
        except SystemExit as leaving:
            self._report_exit(number, leaving)
            raise
        except Exception as error:  # noqa: BLE001  # the server is to know of any
            return pack_error(number, CLIENT_APP_RAISED, error), []

    def _report_exit(self, number: int, leaving: SystemExit) -> None:
        """Tell the server why this process is about to end, unless nobody listens any more."""
        if not self._board.is_shut:
            status, text = exit_status(leaving)
            why = f"its process ended with exit code {status}" + (f": {text}" if text else "")
            self._replies.send(dump((number, "error", None, crash_error(why), None)))

    def _node_config(self, partition: int) -> dict[str, ConfigValue]:
        return {"partition-id": partition, "num-partitions": self._setup.num_nodes}

    def _make_context(self, node_id: int, partition: int, state: bytes) -> Context:
        records, node_config = unpack_node(state, self._node_config(partition))
        return Context(
            run_id=self._setup.run_id,
            node_id=node_id,
            node_config=node_config,
            state=records,
            run_config=dict(self._setup.run_config),
        )

    def _find_arrays(self, place: tuple[int, int, int]) -> ArrayRecord:
        """Return the arrays that lie at an address; those of the message before are at hand."""
        address = Address(*place)
        if address not in self._arrays:
            fd = self._parcels.open(address)
            facts, end = load(fd, address.offset)
            self._arrays[address] = (facts, read_pieces(fd, [size for *_, size in facts], end))
        return rebuild_arrays(*self._arrays[address])


def pack_error(number: int, code: int, error: Exception) -> bytes:
    """Print what went wrong in a client, and return the head of its reply."""
    with suppress(Exception):  # a client may have put any object in place of stderr
        print(packed(error), file=sys.stderr)
    reason = f"{type(error)}:<'{text_of(error)}'>"
    return dump((number, "error", None, (code, reason), None))


def pack_reply(
    number: int, message: Message, reply: Message, state_after: bytes, state_before: bytes
) -> tuple[bytes, list[Buffer]]:
    """Return a reply's head and the bytes of its arrays.

    Raises
    ------
    TypeError, ValueError
        If the app returned something that cannot be sent, or that answers another message.
    """
    if not isinstance(reply, Message):
        raise TypeError(f"expected the ClientApp to return a Message, got {type(reply).__name__}")
    if reply.metadata.reply_to_message_id != message.metadata.message_id:
        raise ValueError("expected a reply to the message: build it with reply_to=message")
    changed = None if state_after == state_before else state_after
    metadata = pack_metadata(reply)
    if reply.has_error():
        body = (int(reply.error.code), reply.error.reason)
        return dump((number, "error", metadata, body, changed)), []
    buffers: list[Buffer] = []

    def place(record: ArrayRecord) -> list[ArrayFacts]:
        facts, data = describe_arrays(record)
        buffers.extend(data)
        return facts

    records = pack_content(reply.content, place)
    return dump((number, "content", metadata, records, changed)), buffers
