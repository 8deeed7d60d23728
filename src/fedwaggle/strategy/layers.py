"""A Flower strategy's settings, wherever it keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from flwr.serverapp.strategy import Strategy

__all__ = ["layers_of", "owner_of", "setting_of"]

T = TypeVar("T")


def layers_of(strategy: Strategy) -> Iterator[Strategy]:
    """Yield a strategy, the one that it wraps (Flower's privacy strategies do), and so on.

    Parameters
    ----------
    strategy : Strategy
        The strategy.
    """
    layer: object = strategy
    while isinstance(layer, Strategy):
        yield layer
        layer = getattr(layer, "strategy", None)


def owner_of(strategy: Strategy, name: str) -> Strategy | None:
    """Return the strategy that has an attribute: this one, or one that it wraps; None if none has.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> owner_of(FedAvg(), "momentum_of_a_pendulum") is None
    True
    """
    return next((layer for layer in layers_of(strategy) if hasattr(layer, name)), None)


def setting_of(strategy: Strategy, name: str, default: T) -> T:
    """Return a setting of a strategy, or of the one that it wraps.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> setting_of(FedAvg(min_train_nodes=7), "min_train_nodes", 0)
    7
    """
    return getattr(owner_of(strategy, name), name, default)
