"""The clients' metrics as one record, whoever sent which.

Flower wants the same keys from every client, and ends the run where they differ. Here each
metric is the weighted mean over those who sent it: sum_k(n_k * m_k) / sum_k(n_k).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import MetricRecord

from fedwaggle.errors import ConfigError
from fedwaggle.text import printable, shown

__all__ = ["as_metrics", "average_metrics", "warn_of_dropped"]

logger = logging.getLogger("flwr.fedwaggle.strategy")

Metrics = Mapping[str, Any]

_MOST_NAMED = 5  # clients, and metrics, in one warning


def average_metrics(
    contents: Sequence[tuple[Metrics, float]], *, weighted_by_key: str = "num-examples"
) -> MetricRecord:
    """Average metrics over the clients that sent them.

    Parameters
    ----------
    contents : Sequence[tuple[MetricRecord, float]]
        Each client's metrics, finite, and its weight, above 0.
    weighted_by_key : str (default: "num-examples")
        Key of the weight in the metrics; it is left out, as Flower does.

    Returns
    -------
    MetricRecord
        Keys in the order in which they are first seen. Lists are averaged by position. A
        metric is left out where some sent a list and others a number, or a list of another
        length. The result does not depend on the order of the clients, but for the keys' own.

    Examples
    --------
    >>> average_metrics([({"loss": 1.0, "f1": 0.5}, 1), ({"loss": 5.0}, 3)])
    {'loss': 4.0, 'f1': 0.5}
    """
    keys = dict.fromkeys(key for metrics, _ in contents for key in metrics)
    keys.pop(weighted_by_key, None)
    averaged = MetricRecord()
    for key in keys:
        sent = [(metrics[key], weight) for metrics, weight in contents if key in metrics]
        lengths = {len(value) if isinstance(value, list) else None for value, _ in sent}
        if len(lengths) > 1:
            continue
        if lengths == {None}:
            averaged[key] = _mean(sent)
        else:
            columns = zip(*(value for value, _ in sent), strict=True)
            weights = [weight for _, weight in sent]
            averaged[key] = [_mean(list(zip(c, weights, strict=True))) for c in columns]
    return averaged


def _mean(values: Sequence[tuple[float, float]]) -> float:
    """Return the weighted mean, which lies between the least value and the largest."""
    total = math.fsum(weight for _, weight in values)
    # `fsum` rounds once, whatever the order. Halves keep the largest floats from overflowing.
    halves = math.fsum(weight / total * (value / 2) for value, weight in values)
    numbers = [value for value, _ in values]
    return float(min(max(2 * halves, min(numbers)), max(numbers)))


def warn_of_dropped(phase: str, server_round: int, dropped: Mapping[str, Sequence[str]]) -> None:
    """Log once for a round which metrics were dropped, if any were.

    Parameters
    ----------
    phase : str
        What the clients were asked to do.
    server_round : int
        The round.
    dropped : Mapping[str, Sequence[str]]
        By client, the names of its metrics that were not finite.
    """
    clients = [client for client, names in dropped.items() if names]
    if clients:
        names = sorted({printable(name, 80) for names in dropped.values() for name in names})
        logger.warning(
            "%s, round %d: metrics that are not finite are dropped: %s (clients: %s)",
            phase,
            server_round,
            _listed([repr(name) for name in names]),
            _listed(clients),
        )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def as_metrics(source: str, said: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the metrics of a user's code as numbers that Flower's records take.

    Parameters
    ----------
    source : str
        The method that returned them.
    said : Mapping[str, Any] | None
        Numbers, truth, arrays and tensors of one dimension at most, or lists of numbers.

    Raises
    ------
    ConfigError
        If there is anything else among them; every such key is named.

    Examples
    --------
    >>> import numpy as np
    >>> as_metrics("on_train_metadata", {"any": True, "mean": np.float32(0.5)})
    {'any': 1, 'mean': 0.5}
    """
    metrics, mistakes = MetricRecord(), []
    for key, value in (said or {}).items():
        try:
            metrics[key] = _numbers(value)
        except TypeError:
            mistakes.append(
                f"{source}, {key!r}: expected a number, or a list of ints or of floats, got "
                f"{shown(value)}; return a float(...) of it, or leave it out"
            )
    if mistakes:
        raise ConfigError(mistakes)
    return dict(metrics)


def _numbers(value: Any) -> Any:  # noqa: ANN401  # whatever the user's code returns
    if hasattr(value, "tolist"):  # NumPy's and torch's numbers and arrays
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_numbers(item) for item in value]
    return int(value) if isinstance(value, bool) else value
