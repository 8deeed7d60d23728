"""A strategy's step, and the way back from one that left no model.

Replies are checked one by one, and each may be finite where the step is not: a change of 1e38
is squared into a server optimizer's moments, a loss of 1e300 scales a client's update. Such a
step is taken back, and the round keeps its model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvgM, Strategy
from flwr.serverapp.strategy.fedopt import FedOpt
from numpy.typing import NDArray

from fedwaggle.strategy.averaging.arrays import Template, decode
from fedwaggle.strategy.averaging.finite import first_non_finite
from fedwaggle.strategy.averaging.kept import Kept
from fedwaggle.strategy.layers import layers_of
from fedwaggle.strategy.step.collecting import Collector, Step

__all__ = ["take_step"]

logger = logging.getLogger("flwr.fedwaggle.strategy")

_MOMENTS = ("m_t", "v_t", "momentum_vector")


def take_step(
    strategy: Strategy, collector: Collector, server_round: int, fewest: int
) -> tuple[Step, list[str]]:
    """Let a strategy step, and take it back if the model or a moment is not finite.

    Where the collector still has the replies, the step is tried again without the one with the
    largest number in it, and so on.

    Parameters
    ----------
    strategy : Strategy
        The strategy. After a step that is taken back, its attributes are what they were before.
        Flower's strategies bind new arrays in a step. A user's that changes its arrays in place
        keeps them changed.
    collector : Collector
        Holds what the clients sent.
    server_round : int
        The round.
    fewest : int
        How many replies a step is made of at least.

    Returns
    -------
    tuple[ArrayRecord | None, Mapping[str, Any] | None]
        The new model, or None to keep the one before, and the clients' metrics.
    list[str]
        The clients without which the step was taken in the end.

    Raises
    ------
    ConfigError
        If the strategy returns arrays that are not of numbers.
    """
    dropped: list[str] = []
    while True:
        undo = _undo_of(strategy)
        with np.errstate(all="ignore"):  # what overflows is found below, and named
            arrays, metrics = collector.step(server_round)
        bad = None if arrays is None else _first_non_finite(strategy, arrays, collector.kept)
        if bad is None:
            return (arrays, metrics), dropped
        undo()
        worst = collector.drop_worst(fewest)
        if worst is None:
            logger.warning(
                "round %d: the step left NaN or an infinity in %s and is taken back; look for "
                "huge numbers in the metrics and norms of the round's clients",
                server_round,
                bad,
            )
            return (None, metrics), []
        dropped.append(worst)


def _undo_of(strategy: Strategy) -> Callable[[], None]:
    """Return a function that gives a strategy back the attributes that it has now.

    No array is copied. Some of Flower's strategies empty the record of the current model.
    """
    before = [
        (layer, {name: _kept(value) for name, value in vars(layer).items()})
        for layer in layers_of(strategy)
    ]

    def undo() -> None:
        for layer, attributes in before:
            vars(layer).clear()
            vars(layer).update(attributes)

    return undo


def _kept(value: object) -> object:
    return ArrayRecord(dict(value.items())) if isinstance(value, ArrayRecord) else value


def _first_non_finite(strategy: Strategy, arrays: ArrayRecord, kept: Kept) -> str | None:
    """Return the name of the first array that holds NaN or an infinity and did not before."""
    specs = Template.of(arrays).averaged.specs
    read = {key: decode(arrays[key], key, spec) for key, spec in specs.items()}
    bad = first_non_finite(kept.blank(read))
    if bad is not None:
        return repr(bad)
    for name, moment in _moments_of(strategy):
        if first_non_finite(moment) is not None:
            return name
    return None


def _moments_of(strategy: Strategy) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
    """Yield a server optimizer's moments, which the next steps are made of."""
    for layer in layers_of(strategy):
        if isinstance(layer, FedOpt | FedAvgM):
            for name in _MOMENTS:
                moment = getattr(layer, name, None) or ()  # Flower's are dicts or lists
                items = moment.items() if isinstance(moment, Mapping) else enumerate(moment)
                yield name, {str(key): np.asarray(array) for key, array in items}
