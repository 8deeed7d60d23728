"""The functions by which a strategy averages metrics, called with what clients sent.

Flower's own average wants the same keys from every client, and a strategy hands it the replies
that it was given: the one that stands for their mean, or those that can be compared.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

from fedwaggle.strategy.layers import owner_of
from fedwaggle.strategy.replies.admission import PartialContent
from fedwaggle.strategy.step.contents import metrics_in
from fedwaggle.strategy.step.metrics import average_metrics

__all__ = ["metrics_of", "whole_of", "without_flowers_count"]

MetricsFn = Callable[[list[RecordDict], str], MetricRecord]


@contextmanager
def metrics_of(
    strategy: Strategy, attribute: str, sent: Callable[[list[RecordDict]], list[RecordDict]]
) -> Iterator[None]:
    """Let the strategy average the metrics that clients sent, whatever replies it is given.

    Flower's own average wants the same keys from every client; ours takes the keys that there
    are. A function that the user has set is called with everything that the clients sent.
    ``sent`` returns the contents that stand behind those that the strategy passes on.
    """
    owner = owner_of(strategy, attribute)
    chosen: MetricsFn | None = getattr(owner, attribute, None)
    if chosen is None:
        yield
        return
    average = _average if chosen is aggregate_metricrecords else _of_whole(chosen)
    setattr(owner, attribute, lambda contents, key: average(list(sent(contents)), key))
    try:
        yield
    finally:
        setattr(owner, attribute, chosen)


def whole_of(
    sent: Sequence[Message], replies: Sequence[Message]
) -> Callable[[list[RecordDict]], list[RecordDict]]:
    """Return a function from the contents of replies to what their clients sent.

    A strategy may pass on the contents of a few replies only (Krum, Bulyan), so each is known by
    its identity. One that the strategy has made itself stands for itself.
    """
    # The pairs keep the contents alive, and so their ids their own.
    pairs = [(r.content, s.content) for s, r in zip(sent, replies, strict=True)]
    behind = {id(passed): (passed, whole) for passed, whole in pairs}
    return lambda contents: [behind.get(id(one), (one, one))[1] for one in contents]


def _of_whole(average: MetricsFn) -> MetricsFn:
    """Let a user's function see only clients without a dropped metric: it may read that one."""

    def average_whole(contents: list[RecordDict], key: str) -> MetricRecord:
        whole = [content for content in contents if not isinstance(content, PartialContent)]
        return average(whole, key) if whole else MetricRecord()

    return average_whole


def _average(contents: list[RecordDict], key: str) -> MetricRecord:
    sent = [metrics for metrics in map(metrics_in, contents) if key in metrics]
    return average_metrics([(dict(m), float(m[key])) for m in sent], weighted_by_key=key)  # type: ignore[arg-type]


@contextmanager
def without_flowers_count() -> Iterator[None]:
    """Keep Flower from logging that it received one result: it is the mean of all."""

    def is_no_count(record: logging.LogRecord) -> bool:
        return "Received %s results" not in str(record.msg)

    flower = logging.getLogger("flwr")
    flower.addFilter(is_no_count)
    try:
        yield
    finally:
        flower.removeFilter(is_no_count)
