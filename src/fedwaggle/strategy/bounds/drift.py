"""How far clients pull apart in a round: the cosine of each change to the mean of all changes.

On clients whose data differ, local training drifts towards each client's own optimum (Karimireddy
et al., arXiv:1910.06378): the cosines fall. The mean is known only when all replies are in, and
none of them is kept; so a few thousand weights of each change are, drawn once for a model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedwaggle.strategy.averaging.arrays import Arrays, flat_reals

__all__ = ["Drift"]

_SAMPLE = 4096  # weights
_MOST_CLIENTS = 1000  # whose changes are kept: 16 MB
_DIGITS = 4


class Drift:
    """The cosines of one round.

    Of a model with more than 4,096 trained weights, as many are drawn, by a seed that is always
    the same. The cosine over them is an estimate: of two random changes with a cosine of c, its
    standard error is about (1 - c^2) / sqrt(4096), and larger where a few weights make up most of a
    change.

    Parameters
    ----------
    keys : Iterable[str]
        Names of the trained arrays.
    current : dict[str, ndarray]
        Arrays of the global model that the clients were sent.
    clients : Iterable[str]
        The cohort, in the order of summation; of a larger one, the first 1,000 are looked at.
    sample : int (default: 4096)
        How many weights are looked at.

    Examples
    --------
    >>> drift = Drift(["w"], {"w": np.zeros(2)}, ["a", "b"])
    >>> drift.hold("a", {"w": np.array([1.0, 0.0])})
    >>> drift.hold("b", {"w": np.array([0.0, 1.0])})
    >>> drift.accept("a", 1.0)
    >>> drift.accept("b", 1.0)
    >>> drift.cosines()
    {'a': 0.7071, 'b': 0.7071}
    """

    def __init__(
        self,
        keys: Iterable[str],
        current: Arrays,
        clients: Iterable[str],
        sample: int = _SAMPLE,
    ) -> None:
        whole = {key: flat_reals(current[key]) for key in keys}
        self._places = _drawn({key: array.size for key, array in whole.items()}, sample)
        self._current = {key: whole[key][at] for key, at in self._places.items()}
        self._order = {name: None for name, _ in zip(clients, range(_MOST_CLIENTS), strict=False)}
        self._held: dict[str, NDArray[np.float32]] = {}
        self._accepted: dict[str, tuple[float, NDArray[np.float32]]] = {}

    def hold(self, client: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep what is looked at of a client's arrays until it is decided on."""
        if client in self._order and self._places:
            parts = [
                np.subtract(flat_reals(arrays[key])[at], self._current[key], dtype=np.float64)
                for key, at in self._places.items()
            ]
            with np.errstate(over="ignore"):
                self._held[client] = np.concatenate(parts).astype(np.float32)

    def accept(self, client: str, weight: float) -> None:
        """Let a change count in the mean: by its weight times what it is shortened to."""
        held = self._held.pop(client, None)
        if held is not None:
            self._accepted[client] = (weight, held)

    def skip(self, client: str) -> None:
        """Forget a change that is not used."""
        self._held.pop(client, None)
        self._accepted.pop(client, None)

    def cosines(self) -> dict[str, float]:
        """Return the cosine of each change to the weighted mean, in the order of summation.

        A change of length 0 has none, and neither has one that is too long for float32.
        """
        known = {name: self._accepted[name] for name in self._order if name in self._accepted}
        if len(known) < 2:  # one change is the mean
            return {}
        changes = np.stack([change for _, change in known.values()]).astype(np.float64)
        weights = np.array([weight for weight, _ in known.values()], dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            mean = weights @ changes
            found = changes @ mean / (np.linalg.norm(changes, axis=1) * np.linalg.norm(mean))
        return {
            name: round(float(cosine), _DIGITS)
            for name, cosine in zip(known, found, strict=True)
            if math.isfinite(cosine)
        }


def _drawn(sizes: Mapping[str, int], sample: int) -> dict[str, NDArray[np.intp]]:
    """Return the places to look at in each array: all of them, or as many as ``sample``."""
    total = sum(sizes.values())
    if total <= sample:
        return {key: np.arange(size) for key, size in sizes.items() if size}
    places = np.unique(np.random.default_rng(0).integers(0, total, sample))
    starts = np.cumsum([0, *sizes.values()])
    cuts = np.searchsorted(places, starts)
    found = {key: places[cuts[i] : cuts[i + 1]] - starts[i] for i, key in enumerate(sizes)}
    return {key: at for key, at in found.items() if at.size}
