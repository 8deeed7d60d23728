"""The board gives each task to one worker, in order, and knows who has what."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from fedwaggle.engine.local.linux import task_queue as board_module
from fedwaggle.engine.local.linux.setup import Setup
from fedwaggle.engine.local.linux.shared_memory import Address
from fedwaggle.engine.local.linux.task_queue import Board
from fedwaggle.engine.local.linux.workers import Workers
from waiting import PATIENCE


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board.create()
    yield board
    board.close()


def letter(number: int) -> Address:
    return Address(7, 5, 100 * number)


def test_tasks_are_taken_in_the_order_in_which_they_were_appended(board: Board) -> None:
    assert [board.append(letter(n)) for n in range(3)] == [0, 1, 2]
    assert board.take(0) == (0, letter(0))
    assert board.take(4) == (1, letter(1))
    assert [(b.slot, b.task) for b in board.busy(range(8))] == [(0, 0), (4, 1)]
    board.finish(0)
    assert (board.in_hand(0), board.in_hand(4)) == (None, 1)
    assert (board.taken(0), board.taken(4), board.taken(5)) == (1, 1, 0)


def test_a_task_that_was_withdrawn_in_time_is_skipped(board: Board) -> None:
    for number in range(3):
        board.append(letter(number))
    assert board.withdraw(1)
    assert board.take(0) == (0, letter(0))
    assert not board.withdraw(0)
    assert board.take(0) == (2, letter(2))


def test_a_token_without_a_task_is_harmless(board: Board) -> None:
    board.add_token()
    board.append(letter(0))
    assert board.take(0) == (0, letter(0))


def test_a_full_board_takes_no_more_until_somebody_took_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(board_module, "_MOST_TASKS", 2)
    board = Board.create()
    assert [board.append(letter(n)) for n in range(3)] == [0, 1, None]
    assert board.take(0) == (0, letter(0))
    assert board.append(letter(9)) == 2
    assert [board.take(0), board.take(0)] == [(1, letter(1)), (2, letter(9))]
    board.close()


@pytest.mark.parametrize("pages", [1, 2])
def test_a_small_pipe_has_a_token_for_each_task(board: Board, pages: int) -> None:
    """However far the queue is when it is filled up again, each task in it can be taken."""
    fcntl.fcntl(board.tokens_in, fcntl.F_SETPIPE_SZ, pages * mmap.PAGESIZE)
    os.set_blocking(board.tokens_out, False)  # a token that is missing is an error
    small = Board(board.fd, board.tokens_out, board.tokens_in)

    def append_all() -> int:
        return len(list(iter(lambda: small.append(letter(0)), None)))

    room = append_all()
    assert room == (pages - 1) * mmap.PAGESIZE + 1
    for taken in (1, room // 3, room - 1, room):
        for _ in range(taken):
            assert small.take(0)
        assert append_all() == taken
    for _ in range(room):
        assert small.take(0)


def test_a_board_that_is_shut_wakes_who_waits(board: Board) -> None:
    view = Board(board.fd, os.dup(board.tokens_out), -1)
    taken: list[object] = []
    waiting = threading.Thread(target=lambda: taken.append(view.take(0)))
    waiting.start()
    board.shut()
    waiting.join(PATIENCE)
    assert taken == [None]


def test_a_board_that_is_shut_gives_no_task_away(board: Board) -> None:
    view = Board(board.fd, os.dup(board.tokens_out), -1)
    board.append(letter(0))
    board.shut()
    assert view.take(0) is None
    assert view.in_hand(0) is None


def test_slots_are_used_in_turn_and_cleared_before(board: Board) -> None:
    """1,024 slots for 256 workers: those behind 768 to 1,023 are 0 to 255 again."""
    board.append(letter(0))
    board.take(255)
    assert [board.clear_slots(range(n, n + 256)) for n in (0, 512, 768)] == [256, 768, 0]
    assert board.in_hand(255) is None


def test_a_slot_tells_its_task_until_the_server_was_told(board: Board) -> None:
    """A fork server that is killed while it reports it leaves the task in the slot."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    setup = Setup([], "", "", 0, 1, {}, {}, 0, 0, 1, 0, isolate=False, fork=True, devices=[])
    board.append(letter(0))
    board.take(0)
    with ours, pytest.raises(BrokenPipeError):
        Workers(setup, board, ours, lambda index, slot: 0)._replace(0, 9)
    assert board.in_hand(0) == 0
