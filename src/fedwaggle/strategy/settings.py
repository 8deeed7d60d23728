"""A Flower strategy's settings, wherever it keeps them."""

from __future__ import annotations

from typing import TypeVar

from flwr.serverapp.strategy import Strategy

__all__ = ["setting_of"]

T = TypeVar("T")


def setting_of(strategy: Strategy, name: str, default: T) -> T:
    """Return a setting of a strategy, or of the one that it wraps, as Flower's privacy ones do.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> setting_of(FedAvg(min_train_nodes=7), "min_train_nodes", 0)
    7
    """
    wrapped: object = strategy
    while isinstance(wrapped, Strategy):
        if hasattr(wrapped, name):
            found: T = getattr(wrapped, name)
            return found
        wrapped = getattr(wrapped, "strategy", None)
    return default
