"""The clients' evaluations of a round: their average, and what most of them report."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Literal, cast

from flwr.serverapp.strategy import Strategy

from fedwaggle.identity import client_order
from fedwaggle.strategy.bounds.outliers import OutlierRule, bounded_weights
from fedwaggle.strategy.layers import setting_of
from fedwaggle.strategy.replies.admission import AdmittedEvaluation
from fedwaggle.strategy.step.contents import alike, metrics_in, with_content, with_weight
from fedwaggle.strategy.step.metric_functions import metrics_of, whole_of

__all__ = ["aggregate_evaluations", "leading_metrics", "typical_value"]


def aggregate_evaluations(
    strategy: Strategy,
    server_round: int,
    evaluations: Sequence[AdmittedEvaluation],
    rule: OutlierRule,
) -> dict[str, Any]:
    """Let a strategy aggregate the clients' evaluations, in the order of their names.

    Their weights are bounded as those of updates are.
    """
    if not evaluations:
        return {}
    key = setting_of(strategy, "weighted_by_key", "num-examples")
    in_order = sorted(evaluations, key=lambda one: client_order(one.client))
    sent = [one.message.content for one in in_order]
    weights = bounded_weights([cast("float", metrics_in(one).get(key, 1)) for one in sent], rule)
    bounded = [
        with_content(one.message, with_weight(content, strategy, weight))
        for one, content, weight in zip(in_order, sent, weights, strict=True)
    ]
    replies = alike(bounded)
    with metrics_of(strategy, "evaluate_metrics_aggr_fn", whole_of(bounded, replies)):
        metrics = strategy.aggregate_evaluate(server_round, replies)
    return dict(metrics or {})


def leading_metrics(
    evaluations: Sequence[AdmittedEvaluation], metrics: Collection[str]
) -> list[str]:
    """Return which of some metrics clients report first, the one that most do before the others.

    One client cannot decide by the order of its metrics which of them picks the best model.
    """
    sent = [metrics_in(one.message.content) for one in evaluations]
    firsts = Counter(next((name for name in each if name in metrics), "") for each in sent)
    return sorted(filter(None, firsts), key=lambda name: (-firsts[name], name))


def typical_value(
    evaluations: Sequence[AdmittedEvaluation], metric: str, mode: Literal["max", "min"]
) -> float | None:
    """Return the median of what clients report for a metric; None if none reports a number.

    Each client counts once, whatever its number of examples. Of an even number, the worse of
    the two values in the middle is taken: one client of two cannot make a model the best.
    """
    sent = [metrics_in(one.message.content).get(metric) for one in evaluations]
    values = [float(value) for value in sent if isinstance(value, int | float)]
    if not values:
        return None
    return statistics.median_low(values) if mode == "max" else statistics.median_high(values)
