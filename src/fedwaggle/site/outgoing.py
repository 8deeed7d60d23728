"""A whole reply under a site's policy: the last look before it leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedwaggle.site.policy import SitePolicy, WeightsRule
from fedwaggle.site.rules import sift_metrics

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, Context, Message, RecordDict

__all__ = ["SITE_KEY", "counts_that_leave", "under_policy"]

SITE_KEY = "site"
"""Name of the record in which a reply states what its site's policy did to it."""

_TOO_FEW = "this site has fewer examples than its policy asks for"


def under_policy(
    msg: Message, context: Context, content: RecordDict, policy: SitePolicy
) -> RecordDict:
    """Return what of a reply's content may leave, with a record of what was done to it.

    Parameters
    ----------
    msg, context : Message, Context
        What the client app was called with; the message holds the global model.
    content : RecordDict
        The reply: ``arrays``, ``metrics`` and ``metadata``, the last under the policy already.
    policy : SitePolicy
        The site's policy.

    Returns
    -------
    RecordDict
        The same records, and the record ``site`` where something was done: names (``withheld``,
        ``changed``) and the bounds on the weights (``clip-norm``, ``noise-std``, ``epsilon``,
        ``delta``). Only that record, with the reason under ``refused``, where nothing may leave.
    """
    from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

    metrics: MetricRecord = content["metrics"]  # type: ignore[assignment]
    if int(metrics["num-examples"]) < policy.min_examples:  # type: ignore[arg-type]
        return RecordDict({SITE_KEY: ConfigRecord({"refused": _TOO_FEW})})
    sifted = sift_metrics(metrics, policy.metrics)
    report: dict[str, Any] = {**sifted.names("metrics.")}
    leaving = RecordDict({**content, "metrics": MetricRecord(sifted.values)})
    arrays = leaving.get("arrays")
    if policy.weights is not None and isinstance(arrays, ArrayRecord):
        leaving["arrays"] = _bounded(msg, context, arrays, policy.weights)
        report |= _bounds_in_words(policy.weights)
    if report:
        leaving[SITE_KEY] = ConfigRecord(report)
    return leaving


def counts_that_leave(counts: Mapping[str, int], policy: SitePolicy) -> dict[str, int]:
    """Return the label counts that a site reports: none of a class with too few examples.

    Examples
    --------
    >>> counts_that_leave({"cat": 20, "dog": 3}, SitePolicy(min_examples=10))
    {'cat': 20}
    """
    if not policy.label_counts:
        return {}
    return {label: count for label, count in counts.items() if count >= policy.min_examples}


def _bounds_in_words(rule: WeightsRule) -> dict[str, float]:
    """Return what is reported of a rule: the budget, and the noise that Flower's mod adds."""
    bounds = {"clip-norm": rule.clip_norm}
    if rule.epsilon is not None and rule.delta is not None:
        std = _sensitivity(rule) * math.sqrt(2 * math.log(1.25 / rule.delta)) / rule.epsilon
        bounds |= {"noise-std": std, "epsilon": rule.epsilon, "delta": rule.delta}
    return bounds


def _sensitivity(rule: WeightsRule) -> float:
    """Return how far two changes can lie apart; 0 where no noise is asked for."""
    if rule.epsilon is None:
        return 0.0
    return rule.sensitivity or 2 * rule.clip_norm


def _bounded(msg: Message, context: Context, arrays: ArrayRecord, rule: WeightsRule) -> ArrayRecord:
    """Clip the change and add noise, with Flower's own mod.

    What is no floating-point number, such as a counter, can be neither clipped nor blurred: it
    leaves as it came from the server.
    """
    from flwr.app import ArrayRecord, Message
    from flwr.clientapp.mod import LocalDpMod

    came: ArrayRecord = next(iter(msg.content.array_records.values()))
    names = [name for name, array in arrays.items() if array.dtype.startswith("float")]
    asked = Message(_only(names, came), reply_to=msg)
    trained = Message(_only(names, arrays), reply_to=msg)
    bound = LocalDpMod(rule.clip_norm, _sensitivity(rule), rule.epsilon or 1.0, rule.delta or 1e-5)
    out = bound(asked, context, lambda *_: trained)
    if out.has_error():
        raise ValueError(f"site-policy: the weights cannot be bounded: {out.error.reason}")
    return ArrayRecord({**came, **out.content["arrays"]})


def _only(names: Sequence[str], arrays: ArrayRecord) -> RecordDict:
    from flwr.app import ArrayRecord, RecordDict

    return RecordDict({"arrays": ArrayRecord({name: arrays[name] for name in names})})
