"""What a strategy reads from a reply, found out from its classes."""

from __future__ import annotations

from flwr.serverapp.strategy import Strategy

from fedwaggle.strategy.aggregation import layers_of

__all__ = ["is_overridden"]


def is_overridden(strategy: Strategy, verb: str) -> bool:
    """Return whether code that is not Flower's takes part in a verb of a strategy.

    Parameters
    ----------
    strategy : Strategy
        The strategy; the ones that it wraps count, too.
    verb : str
        Name of the method, such as ``"aggregate_train"``.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> class Mine(FedAvg):
    ...     def aggregate_evaluate(self, server_round, replies):
    ...         return None
    >>> is_overridden(Mine(), "aggregate_evaluate"), is_overridden(Mine(), "aggregate_train")
    (True, False)
    """
    return any(
        verb in vars(owner) and not _is_flowers(owner)
        for layer in layers_of(strategy)
        for owner in (layer, *type(layer).__mro__)
    )


def _is_flowers(owner: object) -> bool:
    return isinstance(owner, type) and owner.__module__.partition(".")[0] == "flwr"
