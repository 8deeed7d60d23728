"""A Flower strategy's settings, wherever it keeps them."""

from __future__ import annotations

from typing import TypeVar

from flwr.serverapp.strategy import Strategy

__all__ = ["owner_of", "setting_of"]

T = TypeVar("T")


def owner_of(strategy: Strategy, name: str) -> Strategy | None:
    """Return who has an attribute: a strategy, or the one that it wraps.

    Flower's privacy strategies wrap another one.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> owner_of(FedAvg(), "momentum_of_a_pendulum") is None
    True
    """
    candidate: object = strategy
    while isinstance(candidate, Strategy):
        if hasattr(candidate, name):
            return candidate
        candidate = getattr(candidate, "strategy", None)
    return None


def setting_of(strategy: Strategy, name: str, default: T) -> T:
    """Return a setting of a strategy, or of the one that it wraps.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> setting_of(FedAvg(min_train_nodes=7), "min_train_nodes", 0)
    7
    """
    return getattr(owner_of(strategy, name), name, default)
