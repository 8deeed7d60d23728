"""Convergence: a loss that has settled, as a pure function of the losses.

Let L be the losses, w the window and e the tolerance. With the means of the last two windows ::

    before = mean(L[-2w : -w])        now = mean(L[-w:])

training has converged if the loss changed by at most a share e of what it was::

    |before - now| <= e * |before|

A loss that rises by more than that has not settled either: it diverges. Means over a window keep
the noise of single epochs from hiding a plateau, or from looking like one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedwaggle.errors import ConfigError

__all__ = ["has_converged"]


def has_converged(losses: Sequence[float], *, window: int, tolerance: float) -> bool:
    """Return whether a loss has reached a plateau, by the formula of this module.

    Parameters
    ----------
    losses : Sequence[float]
        One loss for each epoch, the first one first.
    window : int
        Epochs that are averaged; at least 1.
    tolerance : float
        The relative change that is still a plateau; at least 0.

    Returns
    -------
    bool
        False with fewer than ``2 * window`` losses, and where one of the last
        ``2 * window`` is not finite.

    Raises
    ------
    ConfigError
        If ``window`` or ``tolerance`` cannot work.

    Examples
    --------
    >>> has_converged([1.0, 0.5], window=1, tolerance=0.01)
    False
    >>> has_converged([1.0, 0.5, 0.499], window=1, tolerance=0.01)
    True
    """
    mistakes = []
    if type(window) is not int or window < 1:
        mistakes.append(f"convergence-window: expected a whole number from 1, got {window!r}")
    if type(tolerance) not in (int, float) or not 0 <= tolerance < math.inf:
        mistakes.append(f"convergence-tolerance: expected a number from 0, got {tolerance!r}")
    if mistakes:
        raise ConfigError(mistakes)
    recent = losses[-2 * window :]
    if len(recent) < 2 * window or not all(math.isfinite(loss) for loss in recent):
        return False
    before, now = _mean(recent[:window]), _mean(recent[window:])
    return abs(before - now) <= tolerance * abs(before)


def _mean(losses: Sequence[float]) -> float:
    """Return the mean; each part is divided first, so that no sum of finite losses overflows."""
    return math.fsum(loss / len(losses) for loss in losses)
