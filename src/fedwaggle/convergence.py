"""Convergence: a loss that has fallen and then settled, as a pure function of the losses.

Let L be the losses, w the window, e the tolerance, f the fall and L0 the first loss of all. With
the means of the last two windows ::

    before = mean(L[-2w : -w])        now = mean(L[-w:])

training has converged if the loss changed by at most a share e of what it was, and lies at least
a share f of the first loss below it::

    |before - now| <= e * |before|    and    L0 - now >= f * |L0|

A loss that rises by more than e has not settled either: it diverges. Means over a window keep the
noise of single epochs from hiding a plateau, or from looking like one. The second separates
a plateau at the end of training from the one before its start: where steps are small, the loss of
an untrained network stays for some epochs at that of guessing.

The first condition is the usual relative stopping rule, for example scikit-learn's ``tol`` and
Keras's ``EarlyStopping(min_delta=...)``, on means. The second one, a share of the first loss, is
our own.

A client sees the losses of one round at a time, so its first loss is kept in its node's state:
Flower holds that state on the node for the length of a run, the local engine also in the points
that a run resumes from. A node that loses its state starts over, and has to fall again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from fedwaggle.errors import ConfigError

if TYPE_CHECKING:
    from flwr.app import RecordDict

    from fedwaggle.config import RunConfig

__all__ = ["convergence_test", "has_converged", "keep_first_loss", "read_first_loss"]

_RECORD, _LOSS = "waggle.first-loss", "loss"


def has_converged(
    losses: Sequence[float],
    *,
    window: int,
    tolerance: float,
    fall: float,
    first_loss: float | None = None,
) -> bool:
    """Return whether a loss has fallen to a plateau, by the formula of this module.

    Parameters
    ----------
    losses : Sequence[float]
        One loss for each epoch, the first one first.
    window : int
        Epochs that are averaged; at least 1.
    tolerance : float
        The relative change that is still a plateau; at least 0.
    fall : float
        The share of the first loss by which the loss must have fallen; from 0 to 1.
    first_loss : float | None (default: None)
        The first loss of the whole training, where ``losses`` begin later; None is the first
        of ``losses``.

    Returns
    -------
    bool
        False with fewer than ``2 * window`` losses, and where the first loss or one of the last
        ``2 * window`` is not finite.

    Raises
    ------
    ConfigError
        If ``window``, ``tolerance`` or ``fall`` cannot work.

    Examples
    --------
    >>> has_converged([1.0, 0.5, 0.499], window=1, tolerance=0.01, fall=0.5)
    True
    >>> has_converged([1.0, 0.999, 0.998], window=1, tolerance=0.01, fall=0.5)
    False
    >>> has_converged([0.5, 0.499], window=1, tolerance=0.01, fall=0.5, first_loss=1.0)
    True
    """
    _check(window, tolerance, fall)
    recent = losses[-2 * window :]
    if len(recent) < 2 * window:
        return False
    first = losses[0] if first_loss is None else first_loss
    if not all(math.isfinite(loss) for loss in (first, *recent)):
        return False
    before, now = _mean(recent[:window]), _mean(recent[window:])
    settled = abs(before - now) <= tolerance * abs(before)
    return settled and first - now >= fall * abs(first)


def convergence_test(config: RunConfig, state: RecordDict) -> Callable[[Sequence[float]], bool]:
    """Return :func:`has_converged` for one client, as the run config asks for it.

    Parameters
    ----------
    config : RunConfig
        ``convergence-window``, ``convergence-tolerance`` and ``convergence-fall`` are read.
    state : RecordDict
        ``context.state`` of the client. It keeps the first loss that this client has had in the
        run, against which later rounds are measured.

    Returns
    -------
    Callable[[Sequence[float]], bool]
        Call it once in a round, with one loss for each epoch.
    """

    def test(losses: Sequence[float]) -> bool:
        first_loss = read_first_loss(state)
        keep_first_loss(state, losses)
        return has_converged(
            losses,
            window=config.convergence_window,
            tolerance=config.convergence_tolerance,
            fall=config.convergence_fall,
            first_loss=first_loss,
        )

    return test


def read_first_loss(state: RecordDict) -> float | None:
    """Return the first loss that this node has had in this run, or None before its first.

    Parameters
    ----------
    state : RecordDict
        ``context.state``, in which :func:`keep_first_loss` keeps it.
    """
    record = state.metric_records.get(_RECORD)
    return None if record is None else float(record[_LOSS])  # type: ignore[arg-type]


def keep_first_loss(state: RecordDict, losses: Iterable[float]) -> None:
    """Keep the first finite one of ``losses`` in a node's state, unless it holds one already.

    Parameters
    ----------
    state : RecordDict
        ``context.state`` of the client; it is changed in place, as Flower expects.
    losses : Iterable[float]
        One loss for each epoch of this round, the first one first.
    """
    from flwr.app import MetricRecord

    first = next(filter(math.isfinite, losses), None)
    if first is not None and _RECORD not in state:
        state[_RECORD] = MetricRecord({_LOSS: first})


def _check(window: int, tolerance: float, fall: float) -> None:
    mistakes = []
    if type(window) is not int or window < 1:
        mistakes.append(f"convergence-window: expected a whole number from 1, got {window!r}")
    if type(tolerance) not in (int, float) or not 0 <= tolerance < math.inf:
        mistakes.append(f"convergence-tolerance: expected a number from 0, got {tolerance!r}")
    if type(fall) not in (int, float) or not 0 <= fall <= 1:
        mistakes.append(f"convergence-fall: expected a number from 0 up to 1, got {fall!r}")
    if mistakes:
        raise ConfigError(mistakes)


def _mean(losses: Sequence[float]) -> float:
    """Return the mean; each part is divided first, so that no sum of finite losses overflows."""
    return math.fsum(loss / len(losses) for loss in losses)
