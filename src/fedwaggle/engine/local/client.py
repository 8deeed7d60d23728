"""One client answers one message: the ClientApp is called, whatever pool it runs in.

A client serves any node: all that a node has is its number and its state, and both come with the
message. What goes wrong in the app becomes an error, and the node's state stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedwaggle.engine.app import ConfigValue
from fedwaggle.engine.flwr_private import (
    CLIENT_APP_RAISED,
    UNKNOWN_ERROR,
    crash_error,
    set_task_identity,
    task_identity,
)
from fedwaggle.engine.local.messages import pack_node, unpack_node
from fedwaggle.engine.local.seeding import RandomNumbers
from fedwaggle.engine.screen.tracebacks import packed
from fedwaggle.text import text_of

__all__ = ["Answer", "Client", "answer_or_crash"]

_RUN_CONFIG_CHANGED = (
    "The `run_config` field of the `Context` object cannot be modified (run_id: {})."
)


@dataclass(frozen=True)
class Answer:
    """What a client answered: a reply, or an error; and its node's state if that has changed.

    Attributes
    ----------
    reply : Message | None
        The reply.
    error : tuple[int, str] | None
        Flower's code and the reason, where there is no reply.
    state : bytes | None
        The node's new state; None if it stays as it was.
    """

    reply: Message | None = None
    error: tuple[int, str] | None = None
    state: bytes | None = None


@dataclass(frozen=True)
class Client:
    """Answers the messages of a run.

    Parameters
    ----------
    app : ClientApp
        The app, imported.
    run_id : int
        Flower's number of the run.
    num_nodes : int
        How many nodes there are.
    node_config : Mapping[str, ConfigValue]
        What every node has in its config, beside its number.
    run_config : Mapping[str, ConfigValue]
        The merged run config.
    show : Callable[[int, str], None]
        Shows what the app raised: the number of the node, and the traceback as one line.
    """

    app: ClientApp
    run_id: int
    num_nodes: int
    node_config: Mapping[str, ConfigValue]
    run_config: Mapping[str, ConfigValue]
    show: Callable[[int, str], None]

    def answer(self, message: Message, partition: int, state: bytes) -> Answer:
        """Let the app answer a message; what it raises is shown, and becomes an error.

        Parameters
        ----------
        message : Message
            The message.
        partition : int
            The number of its node.
        state : bytes
            The node's state, as Flower serialises it.

        Raises
        ------
        SystemExit
            If the app asks for the end of its process.
        """
        node_config: dict[str, ConfigValue] = {
            **self.node_config,
            "partition-id": partition,
            "num-partitions": self.num_nodes,
        }
        records, changed_config = unpack_node(state, node_config)
        context = Context(
            run_id=self.run_id,
            node_id=message.metadata.dst_node_id,
            node_config=changed_config,
            state=records,
            run_config=dict(self.run_config),
        )
        set_task_identity(self.run_id, context.node_id)
        try:
            reply = self.app(message, context)
            if context.run_config != self.run_config:  # refused as Flower does, in its words
                error = ValueError(_RUN_CONFIG_CHANGED.format(context.run_id))
                return self.failed(error, partition, UNKNOWN_ERROR)
            state_after = pack_node(context, node_config)
            _check(reply, message)
        except Exception as error:  # noqa: BLE001  # the server is to know of any
            return self.failed(error, partition)
        return Answer(reply=reply, state=None if state_after == state else state_after)

    def failed(self, error: Exception, partition: int, code: int = CLIENT_APP_RAISED) -> Answer:
        """Show what went wrong for a node, and return it as an answer."""
        with suppress(Exception):  # a client may have put any object in place of stderr
            self.show(partition, packed(error))
        return Answer(error=(code, f"{type(error)}:<'{text_of(error)}'>"))


def answer_or_crash(
    client: Client, message: Message, partition: int, state: bytes, random: RandomNumbers | None
) -> Answer:
    """Answer a message in a process that goes on afterwards, whatever the app asks for.

    Parameters
    ----------
    client : Client
        Who answers.
    message, partition, state : Message, int, bytes
        See :meth:`Client.answer`.
    random : RandomNumbers | None
        What makes the message's random numbers repeatable; None leaves the generators alone.
    """
    with task_identity(client.run_id, message.metadata.dst_node_id):
        if random is not None:
            random.seed_for(int(message.metadata.message_id))
        try:
            return client.answer(message, partition, state)
        except SystemExit as leaving:
            return Answer(error=crash_error(f"it ended by SystemExit: {leaving.code}"))


def _check(reply: object, message: Message) -> None:
    """Raise if the app returned something that is no reply to the message."""
    if not isinstance(reply, Message):
        raise TypeError(f"expected the ClientApp to return a Message, got {type(reply).__name__}")
    if reply.metadata.reply_to_message_id != message.metadata.message_id:
        raise ValueError("expected a reply to the message: build it with reply_to=message")
