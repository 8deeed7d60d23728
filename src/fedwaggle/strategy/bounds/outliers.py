r"""How far a reply may be out of line with the others of its round, and what becomes of it then.

A reply can be well-formed, and still be made to own the model: a change a thousand times as long
as the others', or a claim to have a million examples. What is usual is for the round itself to
show. Let :math:`s_1 \ge s_2 \ge \dots` be a size of its n replies (the L2 norm of a change, or
a weight), f = max(1, floor(share * n)) how many of the replies may be hostile, and ::

    r = s_(f+1)                     the reference: the largest size once f replies are set aside

Whichever f replies are hostile, r is at most the largest size of an honest one. A reply is then

    used as it is                   if its size is at most clip * r,
    shortened to r                  if it is larger: same direction, the influence of another,
    quarantined                     if its change is longer than quarantine * r.

The outcome is a function of the round's replies alone, whatever the order of their arrival, and
the first round needs no other rule. While replies arrive, the f+1 largest sizes only grow, so a
reply that is within its bounds once is within them for good: it need not wait for the others.

Of two replies, neither is known to be the odd one: none is quarantined, and one is shortened only
where it is beyond ``quarantine``. A single reply has nothing to be compared with.

References
----------
The bound on a change's norm: Sun et al., Can You Really Backdoor Federated Learning?,
arXiv:1911.07963. A bound at the next largest norm, which adapts to the round: Allouah et al.,
Adaptive Gradient Clipping for Robust Federated Learning, arXiv:2405.14432, where 2 * f * (n - f)
/ n replies are set aside; here it is f. The tolerance of ``clip``, within which honest clients of
unequal sizes are left as they are, and the quarantine are ours.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass

from fedwaggle.config import RunConfig
from fedwaggle.strategy.codes import Code, Refused

__all__ = ["Bounds", "OutlierRule", "Sizes", "Terms", "bounded_weights"]

_DEFAULT = RunConfig()  # each default is written once, beside its key
_MAJORITY = 3  # the fewest replies of which most can be honest if one is not


@dataclass(frozen=True, kw_only=True)
class OutlierRule:
    """How far a reply may be out of line.

    Attributes
    ----------
    share : float
        Share of a round's replies that may be hostile, one at least; 0 switches all bounds off.
    clip_norm : float
        How many times as long as the reference a change may be; a longer one is shortened to the
        reference. 0 does not bound it.
    clip_weight : float
        How many times the reference a weight may be; a larger one counts as the reference. 0 does
        not bound it.
    quarantine : float
        How many times as long as the reference the change of a reply is that is not used at all;
        0 quarantines none.
    """

    share: float = _DEFAULT.outlier_share
    clip_norm: float = _DEFAULT.outlier_clip_norm
    clip_weight: float = _DEFAULT.outlier_clip_weight
    quarantine: float = _DEFAULT.outlier_quarantine

    @classmethod
    def of(cls, config: RunConfig) -> OutlierRule:
        """Return the rule that a run config asks for."""
        return cls(
            share=config.outlier_share,
            clip_norm=config.outlier_clip_norm,
            clip_weight=config.outlier_clip_weight,
            quarantine=config.outlier_quarantine,
        )

    def set_aside(self, replies: int) -> int:
        """Return how many of so many replies may be hostile.

        Examples
        --------
        >>> [OutlierRule(share=0.1).set_aside(n) for n in (1, 5, 20, 100)]
        [1, 1, 2, 10]
        """
        return max(1, math.floor(self.share * replies))

    def untouched(self, clip: float, replies: int) -> float:
        """Return how many times the reference a size may be before it is bounded.

        Examples
        --------
        >>> rule = OutlierRule(clip_norm=2.0, quarantine=100.0)
        >>> rule.untouched(rule.clip_norm, 5), rule.untouched(rule.clip_norm, 2)
        (2.0, 100.0)
        """
        if not clip:
            return math.inf
        return clip if replies >= _MAJORITY else max(clip, self.quarantine)


@dataclass(frozen=True)
class Sizes:
    """What a reply would move.

    Attributes
    ----------
    norms : tuple[float, ...]
        L2 norm of its change to the global model, for each group of arrays; the first group is
        what is trained.
    weight : float
        Its weight in the mean, above 0.
    """

    norms: tuple[float, ...]
    weight: float


@dataclass(frozen=True)
class Terms:
    """On which terms a reply gets into the mean.

    Attributes
    ----------
    weight : float
        Its weight.
    scales : tuple[float, ...]
        What its change is multiplied by, for each group of arrays; at most 1.
    """

    weight: float
    scales: tuple[float, ...]

    @property
    def is_clipped(self) -> bool:
        """Whether the change is shortened."""
        return any(scale < 1 for scale in self.scales)


class Bounds:
    """The bounds of one round: takes the sizes of its replies, and decides on each.

    Parameters
    ----------
    rule : OutlierRule
        How far a reply may be out of line.
    cohort : int
        How many replies there may be at most.

    Examples
    --------
    Of changes of 1, 1.2, 3 and 100, the reference is 3, as one of four may be hostile; 100 is
    shortened to 3:

    >>> bounds = Bounds(OutlierRule(), cohort=4)
    >>> for client, norm in {"a": 1.0, "b": 100.0, "c": 3.0, "d": 1.2}.items():
    ...     bounds.add(client, Sizes((norm,), weight=10))
    ...     print(client, sorted(bounds.settled()))
    a []
    b ['a']
    c ['c']
    d ['d']
    >>> bounds.rest()
    {'b': Terms(weight=10, scales=(0.03,))}
    """

    def __init__(self, rule: OutlierRule, cohort: int) -> None:
        self._rule = rule
        self._cohort = cohort
        self._open: dict[str, Sizes] = {}
        self._norms: list[list[float]] = []  # ascending, for each group
        self._weights: list[float] = []

    def add(self, client: str, sizes: Sizes) -> None:
        """Take the sizes of a client's reply."""
        self._open[client] = sizes
        if not self._norms:
            self._norms = [[] for _ in sizes.norms]
        for norms, norm in zip(self._norms, sizes.norms, strict=True):
            insort(norms, norm)
        insort(self._weights, sizes.weight)

    def settled(self) -> dict[str, Terms]:
        """Return the terms of the replies that are within all bounds, whatever else arrives.

        Each is returned once.
        """
        within: dict[str, Terms] = {}
        if (
            self._rule.share
            and len(self._weights) <= self._rule.set_aside(self._cohort) < self._cohort
        ):
            return within  # without a reference, a large cohort would be judged in vain each time
        for client, sizes in list(self._open.items()):
            terms = self._judge(sizes, self._cohort)
            if terms == Terms(sizes.weight, (1.0,) * len(sizes.norms)):
                within[client] = terms
                del self._open[client]
        return within

    def rest(self) -> dict[str, Terms | Refused]:
        """Return what becomes of the replies that were not settled, when all are in."""
        judged = {c: self._judge(sizes, len(self._weights)) for c, sizes in self._open.items()}
        self._open = {}
        return judged

    def _judge(self, sizes: Sizes, replies: int) -> Terms | Refused:
        """Judge a reply as one of so many."""
        rule = self._rule
        if not rule.share or replies == 1:
            return Terms(sizes.weight, (1.0,) * len(sizes.norms))
        aside = rule.set_aside(replies)
        references = [_reference(norms, aside) for norms in self._norms]
        # Where the others have not changed anything, no change is so many times as long.
        if replies >= _MAJORITY and sizes.norms[0] > rule.quarantine * references[0] > 0:
            return _out_of_line(sizes.norms[0], references[0], rule.quarantine)
        scales = [
            _scale(norm, reference, rule.untouched(rule.clip_norm, replies))
            for norm, reference in zip(sizes.norms, references, strict=True)
        ]
        weight = _bounded(sizes.weight, self._weights, replies, rule)
        return Terms(weight, tuple(scales))


def bounded_weights(weights: Sequence[float], rule: OutlierRule) -> list[float]:
    """Return the weights of a round's replies, none above its bound.

    Examples
    --------
    >>> bounded_weights([100, 120, 10_000_000], OutlierRule())
    [100, 120, 120]
    """
    ascending = sorted(weights)
    return [_bounded(weight, ascending, len(weights), rule) for weight in weights]


def _bounded(weight: float, ascending: Sequence[float], replies: int, rule: OutlierRule) -> float:
    """Return a weight as one of so many replies, of which these have arrived."""
    if not rule.share or replies == 1:
        return weight
    reference = _reference(ascending, rule.set_aside(replies))
    within = _is_within(weight, reference, rule.untouched(rule.clip_weight, replies))
    return weight if within else reference


def _reference(ascending: Sequence[float], aside: int) -> float:
    """Return the largest size when the largest so many are set aside; 0 if none is left."""
    return ascending[-1 - aside] if len(ascending) > aside else 0.0


def _scale(norm: float, reference: float, untouched: float) -> float:
    if _is_within(norm, reference, untouched):
        return 1.0
    return reference / norm  # 0 if the norm is too large for a float


def _is_within(size: float, reference: float, times: float) -> bool:
    return math.isinf(times) or size <= times * reference  # inf * 0 is NaN


def _out_of_line(norm: float, reference: float, factor: float) -> Refused:
    return Refused(
        Code.OUT_OF_LINE,
        f"its change has the norm {norm:.4g}, expected at most outlier-quarantine = {factor:g} "
        f"times the reference of the round's replies, which is {reference:.4g}",
    )
