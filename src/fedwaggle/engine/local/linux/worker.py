"""A worker: takes messages from the queue, lets a client answer them, sends the replies."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import cast

from flwr.app import ArrayRecord, Message
from flwr.clientapp import ClientApp

from fedwaggle.engine.flwr_private import crash_error, make_message
from fedwaggle.engine.local.client import Answer, Client
from fedwaggle.engine.local.frames import Buffer, FrameSender, load, read_pieces
from fedwaggle.engine.local.linux.leaving import exit_status
from fedwaggle.engine.local.linux.protocol import (
    Content,
    Erred,
    Expired,
    Letter,
    Ready,
    decode,
    encode,
)
from fedwaggle.engine.local.linux.setup import Setup
from fedwaggle.engine.local.linux.shared_memory import Address, ParcelReader
from fedwaggle.engine.local.linux.task_queue import Board
from fedwaggle.engine.local.messages import (
    ArrayFacts,
    describe_arrays,
    pack_content,
    pack_metadata,
    rebuild_arrays,
    unpack_content,
)
from fedwaggle.engine.local.seeding import RandomNumbers

__all__ = ["Worker"]

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
        self._setup, self._board, self._slot = setup, board, slot
        self._client = Client(
            app,
            setup.run_id,
            setup.num_nodes,
            setup.node_config,
            setup.run_config,
            show=_print_error,
        )
        self._set_label = set_label
        self._random = None if setup.seed is None else RandomNumbers(setup.seed)
        self._folder = os.open(".", os.O_PATH | os.O_CLOEXEC)
        self._replies = FrameSender(socket.socket(fileno=setup.replies))
        self._parcels = ParcelReader(setup.server_pid)
        self._arrays: dict[Address, tuple[list[ArrayFacts], list[bytes]]] = {}

    def serve(self) -> None:
        """Answer messages until the board is closed; or one, if messages are isolated."""
        self._replies.send(encode(Ready()))
        self._board.arrive(self._slot)
        with self._random or nullcontext():
            while (task := self._board.take(self._slot)) is not None:
                self._answer(task.number, task.letter)
                if self._setup.isolate:  # with the task in hand: at the end of a run it is woken
                    self._replies.wait_until_read()  # nobody else knows how much was sent
                self._board.finish(self._slot)
                if self._setup.isolate:
                    return

    def _answer(self, number: int, address: Address) -> None:
        fd = self._parcels.open(address)
        values, _ = load(fd, address.offset)
        letter = cast("Letter", decode(values))
        if letter.metadata[_CREATED_AT] + letter.metadata[_TTL] <= time.time():
            self._replies.send(encode(Expired(number)))
            return
        self._set_label(f"[client {letter.partition}] ")
        os.fchdir(self._folder)  # the client before may have left it
        if self._random is not None:
            # Ids count in the order of pushing; a task's number depends on who was free first.
            self._random.seed_for(int(letter.metadata[_MESSAGE_ID]))
        head, buffers = self._reply(number, letter)
        self._board.stop_clock(self._slot)  # it may have to wait until there is room for a reply
        self._set_label(f"[client {letter.partition}] ")  # ends a line that was left open
        self._replies.send(head, buffers)

    def _reply(self, number: int, letter: Letter) -> tuple[bytes, list[Buffer]]:
        """Return the reply's head and the bytes of its arrays."""
        used = {Address(*values) for _, kind, values in letter.records if kind == "arrays"}
        self._arrays = {place: arrays for place, arrays in self._arrays.items() if place in used}
        content = unpack_content(letter.records, self._find_arrays)
        message = make_message(letter.metadata, content=content)
        try:
            answer = self._client.answer(message, letter.partition, letter.state)
        except SystemExit as leaving:
            self._report_exit(number, leaving)
            raise
        try:
            return _pack(number, answer)
        except Exception as error:  # noqa: BLE001  # it returned something that cannot be sent
            return _pack(number, self._client.failed(error, letter.partition))

    def _report_exit(self, number: int, leaving: SystemExit) -> None:
        """Tell the server why this process is about to end, unless nobody listens any more."""
        if not self._board.is_shut:
            status, text = exit_status(leaving)
            why = f"its process ended with exit code {status}" + (f": {text}" if text else "")
            self._replies.send(encode(Erred(number, None, *crash_error(why))))

    def _find_arrays(self, place: tuple[int, int, int]) -> ArrayRecord:
        """Return the arrays that lie at an address; those of the message before are at hand."""
        address = Address(*place)
        if address not in self._arrays:
            fd = self._parcels.open(address)
            facts, end = load(fd, address.offset)
            self._arrays[address] = (facts, read_pieces(fd, [size for *_, size in facts], end))
        return rebuild_arrays(*self._arrays[address])


def _print_error(partition: int, trace: str) -> None:
    print(trace, file=sys.stderr)  # whose lines have the client's label


def _pack(number: int, answer: Answer) -> tuple[bytes, list[Buffer]]:
    """Return the head of what is sent of an answer, and the bytes of its arrays.

    Raises
    ------
    TypeError, ValueError
        If the reply holds something that cannot be sent.
    """
    if answer.error is not None:
        return encode(Erred(number, None, *answer.error)), []
    reply = cast("Message", answer.reply)
    metadata = pack_metadata(reply)
    if reply.has_error():
        code, reason = int(reply.error.code), reply.error.reason
        return encode(Erred(number, metadata, code, reason, answer.state)), []
    buffers: list[Buffer] = []

    def place(record: ArrayRecord) -> list[ArrayFacts]:
        facts, data = describe_arrays(record)
        buffers.extend(data)
        return facts

    records = pack_content(reply.content, place)
    return encode(Content(number, metadata, records, answer.state)), buffers
