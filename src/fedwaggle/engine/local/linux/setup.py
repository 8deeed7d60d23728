"""What a worker needs to know before its first task, as a file in memory that workers inherit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fedwaggle.engine.local.frames import dump, load, write_all

__all__ = ["Setup"]


@dataclass(frozen=True)
class Setup:
    """The run, as its workers see it.

    Attributes
    ----------
    sys_path : list[str]
        Where modules are found: the path of the server's process.
    folder, clientapp : str
        The app's folder, and ``module:attribute`` of its ClientApp.
    run_id : int
        Flower's number of the run.
    num_nodes : int
        How many nodes there are.
    node_config : Mapping[str, Any]
        What every node has in its config, beside its number.
    run_config : Mapping[str, Any]
        The merged run config.
    server_pid : int
        The server's process, whose memory holds the messages.
    seed : int | None
        What the random numbers of a message derive from, besides its number; None leaves the
        generators alone.
    workers, first_slot : int
        How many workers there are, and the first one's slot on the board.
    isolate : bool
        Whether a worker ends after one message.
    fork : bool
        Whether workers may share one import of the app.
    devices : list[str]
        ``CUDA_VISIBLE_DEVICES`` of each worker; empty leaves the environment as it is.
    board, tokens_out, tokens_in, replies, output : int
        Inherited file descriptors: the board and its two pipe ends, the socket for replies, and
        the pipe for what clients print.
    """

    sys_path: list[str]
    folder: str
    clientapp: str
    run_id: int
    num_nodes: int
    node_config: Mapping[str, Any]
    run_config: Mapping[str, Any]
    server_pid: int
    seed: int | None
    workers: int
    first_slot: int
    isolate: bool
    fork: bool
    devices: list[str]
    board: int = -1
    tokens_out: int = -1
    tokens_in: int = -1
    replies: int = -1
    output: int = -1

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The file descriptors that a worker inherits."""
        return (self.board, self.tokens_out, self.replies, self.output)

    def write(self) -> int:
        """Write this into a file in memory and return its descriptor."""
        fd = os.memfd_create("waggle-setup", os.MFD_CLOEXEC)
        write_all(fd, [dump(asdict(self))])
        return fd

    @classmethod
    def read(cls, fd: int) -> Setup:
        """Return what was written into a file in memory."""
        values, _ = load(fd)
        return cls(**values)
