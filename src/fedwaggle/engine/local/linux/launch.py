"""How the engine's processes begin: their command, what they import, and that they end in time."""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import gc
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from fedwaggle.engine.local.linux.client_output import redirect_output
from fedwaggle.engine.local.linux.leaving import exit_status, limit_leaving
from fedwaggle.engine.local.linux.protocol import Failed, encode
from fedwaggle.engine.local.linux.setup import Setup
from fedwaggle.engine.local.linux.task_queue import Board

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp

__all__ = [
    "PARENT_ENDED",
    "command",
    "die_with_parent",
    "import_app",
    "last_error",
    "redirect_import",
    "run_worker",
    "work",
]

PARENT_ENDED = signal.SIGUSR2  # to the fork server; the system sends this for a mere thread, too

_LABEL = "[ClientApp] "  # of what no client prints, but the app's import and its exit handlers
_LONGEST_ERROR = 8_000  # characters, so that it fits into a packet
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def command(function: str, *arguments: int) -> list[str]:
    """Return the command of a fresh interpreter that calls a function of the engine.

    The path of modules is handed over, too: this library is found where it was found here.

    Parameters
    ----------
    function : str
        ``module.function`` of this package.
    arguments : int
        What it is called with.
    """
    code = (
        "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
        f"from fedwaggle.engine.local.linux import {function.partition('.')[0]}; "
        f"{function}(*map(int, sys.argv[2:]))"
    )
    return [sys.executable, "-c", code, json.dumps(sys.path), *map(str, arguments)]


def die_with_parent(how: signal.Signals, parent_pid: int) -> None:
    """Ask the system for a signal when the parent dies, however it dies.

    To the system, the parent is the thread that started this process: where others live on,
    the signal comes at its end, too.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, how)
    if os.getppid() != parent_pid:  # it died before we asked
        os.kill(os.getpid(), how)


def last_error() -> str:
    """Return the traceback of the error that is being handled, or the end of a very long one."""
    return traceback.format_exc()[-_LONGEST_ERROR:]


def import_app(setup: Setup) -> ClientApp:
    """Import the ClientApp; Flower itself comes with it."""
    gc.disable()  # an import makes much and throws nothing away
    try:
        from fedwaggle.engine.flwr_private import load_client_app
        from fedwaggle.engine.local.fast_arrays import install

        install()
        return load_client_app(setup.clientapp, setup.folder)
    finally:
        gc.enable()


def run_worker(
    setup: Setup, app: ClientApp, board: Board, slot: int, set_label: Callable[[str], None]
) -> int:
    """Answer messages until there are no more, or the app ends this; return the exit status.

    The caller then ends the process in order, for which it has a few seconds from now on.
    """
    from fedwaggle.engine.local.linux.worker import Worker

    faulthandler.enable(file=2)  # shows where the app was when it crashed
    _leave_on_request(board)
    status = 0
    try:
        Worker(setup, app, board, slot, set_label).serve()
    except SystemExit as leaving:  # the client's own wish
        status, text = exit_status(leaving)
        if text:
            print(text, file=sys.stderr)
    except BaseException:  # noqa: BLE001  # the app may raise anything; the process ends either way
        traceback.print_exc()
        status = 1
    limit_leaving()
    set_label(_LABEL)
    return status


def _leave_on_request(board: Board) -> None:
    """Let SIGTERM end what a client does when the run is over; before, it kills as it always does.

    The children that a client forks have this handler, too: to them it is the plain signal.
    """
    worker_pid = os.getpid()

    def leave(number: int, frame: FrameType | None) -> None:
        if board.is_shut and os.getpid() == worker_pid:
            raise SystemExit
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, leave)


def redirect_import(setup: Setup) -> Callable[[str], None]:
    """Send what the import of the app prints through the server's process; see ``output``."""
    set_label = redirect_output(setup.output, _LABEL)
    atexit.register(set_label, "")  # the first to be registered is the last to be called
    return set_label


def work(setup_fd: int, slot: int, parent_pid: int) -> None:
    """Be a worker with an import of its own."""
    die_with_parent(signal.SIGKILL, parent_pid)
    setup = Setup.read(setup_fd)
    set_label = redirect_import(setup)
    try:
        app = import_app(setup)
    except BaseException:  # noqa: BLE001  # an import may raise anything; the server must know
        with socket.socket(fileno=setup.replies) as replies:
            replies.sendall(encode(Failed(last_error())))
        return
    board = Board(setup.board, setup.tokens_out, -1)
    sys.exit(run_worker(setup, app, board, slot, set_label))
