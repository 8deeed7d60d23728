"""The fork server: a small process that imports the ClientApp once and forks the workers from it.

It has one thread, runs nothing of the app but its import, and touches no GPU, so a fork of it
is safe at any time: a worker that died is replaced without another import. Where the import
itself started threads or initialised CUDA, and where GPUs are visible, each worker is a fresh
interpreter with its own import.

It is the parent of the workers: it sees each of them end, reports it to the server's process, and
ends them all when that process closes the channel or dies.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import FrameType

from fedwaggle.engine.local.linux.launch import (
    PARENT_ENDED,
    die_with_parent,
    import_app,
    last_error,
    redirect_import,
)
from fedwaggle.engine.local.linux.leaving import Inheritance, leave_fork_server
from fedwaggle.engine.local.linux.protocol import Failed, Ready, encode
from fedwaggle.engine.local.linux.setup import Setup
from fedwaggle.engine.local.linux.task_queue import Board
from fedwaggle.engine.local.linux.workers import Forker, Imported, Spawner, Starter, Workers
from fedwaggle.engine.local.seeding import SeedWatch

__all__ = ["serve"]


class _Stopped(BaseException):
    """The server's process wants no more; not an ``Exception``, which an app might catch."""


def serve(setup_fd: int, control_fd: int, parent_pid: int) -> None:
    """Be the fork server of the server's process, until that process wants no more."""

    def stop(number: int, frame: FrameType | None) -> None:
        # The server may start us from a thread that ends soon, which is nothing to us.
        if number != PARENT_ENDED or os.getppid() != parent_pid:
            raise _Stopped

    # The server's process may end at any moment, also while the app is being imported.
    with suppress(_Stopped, ConnectionError):
        signal.signal(signal.SIGTERM, stop)
        signal.signal(PARENT_ENDED, stop)
        die_with_parent(PARENT_ENDED, parent_pid)
        _serve(setup_fd, control_fd)
    leave_fork_server()


def _serve(setup_fd: int, control_fd: int) -> None:
    setup = Setup.read(setup_fd)
    for fd in (control_fd, setup.tokens_in):  # in other hands, they would outlive this process
        os.set_inheritable(fd, False)
    set_label = redirect_import(setup)
    control = socket.socket(fileno=control_fd)
    try:
        imported, why_spawn = prepare(setup)
    except _Stopped:
        raise
    except BaseException:  # noqa: BLE001  # an import may raise anything; the server must know
        control.sendall(encode(Failed(last_error())))
        return
    set_label("")
    board = Board(setup.board, setup.tokens_out, setup.tokens_in)
    if imported is None:
        starter: Starter = Spawner(setup, setup_fd)
    else:
        starter = Forker(setup, board, imported, set_label, control_fd)
    control.sendall(encode(Ready(why_spawn)))
    workers = Workers(setup, board, control, starter)
    try:
        workers.watch()
    finally:
        workers.kill_all()
        if imported is not None:
            imported.inheritance.finalize()


def prepare(setup: Setup) -> tuple[Imported | None, str]:
    """Import the app if it can be shared, and say why not if it cannot."""
    if not setup.fork:
        return None, "GPUs are visible"
    with SeedWatch() as seeds:
        app = import_app(setup)
    if "torch" in sys.modules:
        # The first step of any optimizer imports it: a second, and 70 MB, in each worker.
        with suppress(ImportError):
            import_module("torch._dynamo")
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        return None, f"importing the app started {threads - 1} threads"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return None, "importing the app initialised CUDA"
    gc.collect()
    inheritance = Inheritance()
    gc.freeze()  # what was imported is never looked at again, so its pages stay shared
    return Imported(app, seeds if setup.seed is None else None, inheritance), ""
