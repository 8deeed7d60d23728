"""One exchange with a cohort: push the messages, yield each reply when it arrives.

Flower's ``Grid.send_and_receive`` returns a list once all replies are in. Here each reply
comes with the seconds it took, and it can be used while the others are still on their way.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

__all__ = ["Arrival", "exchange"]

_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Arrival:
    """A reply and how long it took.

    Attributes
    ----------
    node_id : int
        The node that was asked. An error reply may come from the SuperLink in its place, so
        this is where the message went, not where the reply says that it comes from.
    message : Message
        The reply; it may hold an error.
    seconds : float
        From the push of the cohort's messages to this reply, on the server's clock.
    """

    node_id: int
    message: Message
    seconds: float


def exchange(grid: Grid, messages: Sequence[Message], *, timeout: float) -> Iterator[Arrival]:
    """Push ``messages`` and yield the replies as they arrive.

    Parameters
    ----------
    grid : Grid
        What carries the messages.
    messages : Sequence[Message]
        One for each node of the cohort.
    timeout : float
        Seconds after which the replies that are still out are given up.

    Yields
    ------
    Arrival
        At most one for each message, in the order of arrival.
    """
    began = time.monotonic()
    grid_ids = list(grid.push_messages(messages))
    # Grids write the id that they gave a message into the message itself.
    waiting = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
    waiting = {key: node for key, node in waiting.items() if key in set(grid_ids)}
    pause = _FIRST_PAUSE_SECONDS
    while waiting:
        for reply in grid.pull_messages(set(waiting)):
            node_id = waiting.pop(reply.metadata.reply_to_message_id, None)
            if node_id is not None:  # a reply to nothing that we asked is not ours to use
                yield Arrival(node_id, reply, time.monotonic() - began)
                pause = _FIRST_PAUSE_SECONDS
        left = timeout - (time.monotonic() - began)
        if left <= 0:
            return
        if waiting:
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
