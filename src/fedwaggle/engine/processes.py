"""Find the processes that a child started, however deep, also after their parents have died.

A process whose parent dies is handed to another parent, so a tree that is read from parent to
child loses it. The session that it was born into stays with it: this module remembers the
sessions of a family while the tree is whole, and finds the orphans by them later.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

import psutil

__all__ = ["ProcessFamily"]

POLL_SECONDS = 0.2


class ProcessFamily:
    """A process that leads its own session, and everything that came from it.

    Look at it now and then (:meth:`members`) while it works: a session is known once one of its
    processes was seen below the leader, and forgotten when it is empty, before the system
    gives its number to somebody else.

    Parameters
    ----------
    leader_pid : int
        A child that was started with ``start_new_session=True``.
    """

    def __init__(self, leader_pid: int) -> None:
        self.leader = psutil.Process(leader_pid)
        self._sessions = {leader_pid}

    def members(self) -> list[psutil.Process]:
        """Return every living process of the family, orphans too; zombies are not alive."""
        known = self._sessions | {_session_of(p.pid) for p in _below(self.leader)}
        found = {process: _session_of(process.pid) for process in psutil.process_iter()}
        self._sessions = {sid for sid in found.values() if sid is not None and sid in known}
        return [p for p, sid in found.items() if sid in self._sessions and _is_alive(p)]

    def workers(self) -> list[psutil.Process]:
        """Return the living children of the leader's own children: who works, not who serves."""
        children = _below(self.leader, recursive=False)
        return [p for child in children for p in _below(child, recursive=False) if _is_alive(p)]

    def terminate_workers(self) -> None:
        """Ask every worker to end, with SIGTERM."""
        for process in self.workers():
            with suppress(psutil.NoSuchProcess):  # it ended by itself in the meantime
                process.terminate()

    def wait_for_workers(self, seconds: float) -> bool:
        """Wait until no worker is left, or for so long; return whether none is."""
        deadline = time.monotonic() + seconds
        while self.workers():
            if time.monotonic() >= deadline:
                return False
            self.members()  # learn who belongs to them while it can be seen
            time.sleep(POLL_SECONDS)
        return True

    def kill(self) -> None:
        """End every member at once; what a dying member still starts is ended too."""
        while members := self.members():
            for process in members:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(members, timeout=POLL_SECONDS)


def _below(process: psutil.Process, *, recursive: bool = True) -> list[psutil.Process]:
    try:
        return process.children(recursive=recursive)
    except psutil.NoSuchProcess:
        return []


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
