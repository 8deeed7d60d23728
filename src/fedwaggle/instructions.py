"""What the server asks of a client in one round, read from a message into a typed value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedwaggle.errors import ConfigError

if TYPE_CHECKING:
    from flwr.app import Message

__all__ = ["Instructions", "read_instructions"]


@dataclass(frozen=True)
class Instructions:
    """What the server asks of a client in one round.

    Attributes
    ----------
    server_round : int
        The round, from 1.
    seed : int
        Decides every random choice of this client in this round.
    lr : float
        The learning rate of this round; 0 in a message that is not about training.
    """

    server_round: int
    seed: int
    lr: float = 0.0


def read_instructions(msg: Message, key: str = "config") -> Instructions:
    """Read the instructions in a message of a Waggle strategy.

    Parameters
    ----------
    msg : Message
        A message to train or to evaluate.
    key : str (default: "config")
        Where its ConfigRecord lies.

    Raises
    ------
    ConfigError
        If there is no such record, or a value in it is missing or of a wrong type.

    Examples
    --------
    >>> from types import SimpleNamespace as Box
    >>> sent = {"server-round": 3, "seed": 7, "lr": 0.01}
    >>> read_instructions(Box(content=Box(config_records={"config": sent})))
    Instructions(server_round=3, seed=7, lr=0.01)
    """
    sent = dict(msg.content.config_records.get(key, {}))
    server_round, seed, lr = sent.get("server-round"), sent.get("seed"), sent.get("lr", 0.0)
    if isinstance(server_round, int) and isinstance(seed, int) and isinstance(lr, int | float):
        return Instructions(server_round, seed, float(lr))
    raise ConfigError(
        [
            f"{key}: expected server-round, seed and lr as numbers, got {sent!r:.200}; "
            "the strategy must be one with the Waggle mixin"
        ]
    )
