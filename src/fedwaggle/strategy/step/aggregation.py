"""From the mean of a round to Flower's step, and back to a model in the model's own dtypes.

Many of Flower's strategies use the replies for one thing only: their weighted mean. For these
the replies are folded while they arrive (:class:`Fold`), and Flower gets a single reply that
holds the mean. It takes its step from there, by its own code, and cannot tell the difference.
All other strategies (a median, a trimmed mean, Krum, a user's own) get every reply.

::

    if takes_mean(strategy):
        stepped = stepped_keys(strategy, template)
        reply = mean_message(mean, like, current=arrays, stepped=stepped, metrics=metrics)
        new, _ = strategy.aggregate_train(server_round, [reply])
        new = restore(new, template, mean=mean, stepped=stepped)

What a server optimizer steps
-----------------------------
FedAdagrad, FedAdam, FedYogi and FedAvgM treat every array as a parameter, the step counters and
the running statistics of BatchNorm too, and turn counters into floats. Here such arrays are not
stepped: the new value is the clients' mean, rounded where it counts. Flower is handed the
current value in their place, so that to its optimizer they have not moved: no integer and no
huge variance ever gets into its moments. Its keys stay those that it compares. A user's own
``aggregate_train`` over such an optimizer gets every reply, with these arrays at their current
value, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from copy import copy
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    QFedAvg,
    Strategy,
)
from flwr.serverapp.strategy.fedopt import FedOpt
from numpy.typing import NDArray

from fedwaggle.strategy.averaging.arrays import Template, encode
from fedwaggle.strategy.averaging.fold import Fold, Mean, to_dtype
from fedwaggle.strategy.averaging.whole import is_wide
from fedwaggle.strategy.layers import layers_of
from fedwaggle.strategy.step.metrics import average_metrics

__all__ = [
    "Fold",
    "Mean",
    "Template",
    "average_metrics",
    "is_robust",
    "mean_message",
    "needs_change",
    "required_metrics",
    "restore",
    "stepped_keys",
    "takes_mean",
]

_OF_THE_MEAN = {
    cls.aggregate_train for cls in (FedAvg, FedAvgM, FedAdagrad, FedAdam, FedYogi)
}  # FedProx and FedOpt inherit FedAvg's
_ROBUST = (Bulyan, FedMedian, FedTrimmedAvg, Krum, MultiKrum)
_DIVIDES = (
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
)
_WRAPPER = DifferentialPrivacyClientSideFixedClipping
_NORM_BIT = "norm_bit"  # flwr.supercore.differential_privacy.KEY_NORM_BIT


def takes_mean(strategy: Strategy) -> bool:
    """Return whether a strategy uses the replies to training only for their weighted mean.

    It does if every ``aggregate_train`` among its classes is one of Flower's that are known to:
    FedAvg, FedProx, FedAvgM, FedAdagrad, FedAdam, FedYogi, and client-side fixed clipping over
    one of these. A user's own override may read every reply, so it gets every reply. So do
    differential privacy with an accountant, which counts replies, and the other wrappers.

    Parameters
    ----------
    strategy : Strategy
        The strategy.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedMedian, FedProx
    >>> takes_mean(FedProx()), takes_mean(FedMedian())
    (True, False)
    """
    if isinstance(strategy, _WRAPPER):
        own = set(_aggregates(strategy)) == {_WRAPPER.aggregate_train}
        return own and strategy.accountant is None and takes_mean(strategy.strategy)
    return set(_aggregates(strategy)) <= _OF_THE_MEAN


def _aggregates(strategy: Strategy) -> Iterator[object]:
    """Yield each ``aggregate_train`` that a call could reach, the instance's own included."""
    for owner in (strategy, *type(strategy).__mro__):
        if owner is not Strategy and "aggregate_train" in vars(owner):
            yield vars(owner)["aggregate_train"]


def is_robust(strategy: Strategy) -> bool:
    """Return whether a strategy bounds by itself what a single reply can do.

    Flower's median, trimmed mean, Krum, Multi-Krum and Bulyan do: they get the replies as sent.

    Parameters
    ----------
    strategy : Strategy
        The strategy.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg, FedMedian
    >>> is_robust(FedMedian()), is_robust(FedAvg())
    (True, False)
    """
    return any(isinstance(layer, _ROBUST) for layer in layers_of(strategy))


def needs_change(strategy: Strategy) -> bool:
    """Return whether a reply with the model as it was ends a strategy's step.

    It does where the server clips each update: Flower divides by the norm of its change.

    Parameters
    ----------
    strategy : Strategy
        The strategy.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> needs_change(FedAvg())
    False
    """
    return any(isinstance(layer, _DIVIDES) for layer in layers_of(strategy))


def required_metrics(strategy: Strategy) -> frozenset[str]:
    """Return the metrics that a strategy's step reads from each reply, and fails without.

    These are the loss of q-FedAvg, which is raised to a power and so at least 0, and the bit by
    which a client states whether it has clipped its update.

    Parameters
    ----------
    strategy : Strategy
        The strategy.

    Examples
    --------
    >>> sorted(required_metrics(QFedAvg(client_learning_rate=0.1)))
    ['train_loss']
    >>> sorted(required_metrics(FedAvg()))
    []
    """
    required = set()
    for layer in layers_of(strategy):
        if isinstance(layer, QFedAvg):
            required.add(layer.train_loss_key)
        if isinstance(layer, DifferentialPrivacyClientSideAdaptiveClipping):
            required.add(_NORM_BIT)
    return frozenset(required)


def stepped_keys(
    strategy: Strategy, template: Template, trainable: frozenset[str] | None = None
) -> frozenset[str]:
    """Return the keys of the arrays that a strategy's step is allowed to change.

    With a server optimizer (FedAdagrad, FedAdam, FedYogi, FedAvgM) these are the trainable ones.
    Any other strategy has its way with all of them: the noise of differential privacy, for
    one, belongs on the statistics of BatchNorm, too.

    Parameters
    ----------
    strategy : Strategy
        The strategy.
    template : Template
        The model.
    trainable : frozenset[str] | None (default: None)
        Keys of the arrays that a server optimizer may step; None is all that the template states.
    """
    if isinstance(strategy, FedOpt | FedAvgM):
        return template.trainable if trainable is None else template.trainable & trainable
    return frozenset(template.averaged.specs)


def mean_message(
    mean: Mean,
    like: Message,
    *,
    current: ArrayRecord,
    stepped: Collection[str],
    metrics: Mapping[str, Any] | None = None,
    weighted_by_key: str = "num-examples",
) -> Message:
    """Return one reply that stands for all replies of a round.

    Parameters
    ----------
    mean : Mean
        The weighted mean of the round's updates.
    like : Message
        Any admitted reply: its metadata and the names of its records are taken over.
    current : ArrayRecord
        The global model that the clients were sent.
    stepped : Collection[str]
        Keys of the arrays that the strategy may change; the others stay at ``current``.
    metrics : Mapping[str, float | int | list] | None (default: None)
        The clients' metrics, averaged.
    weighted_by_key : str (default: "num-examples")
        Under this key the reply has the weight of the mean.

    Returns
    -------
    Message
        With one ArrayRecord, in the order of the model's keys, and one MetricRecord.
    """
    arrays = ArrayRecord()
    for key in current:  # in the order of the model
        is_mean = key in stepped and key in mean.arrays
        arrays[key] = encode(mean.arrays[key]) if is_mean else current[key]
    names = {type(record): name for name, record in like.content.items()}
    arrays_name = names.get(ArrayRecord, "arrays")
    metrics_name = names.get(MetricRecord, "metrics")
    numbers = MetricRecord({**(metrics or {}), weighted_by_key: mean.weight})
    message = copy(like)  # shallow: the reply that it is like keeps its own content
    message.content = RecordDict({arrays_name: arrays, metrics_name: numbers})
    return message


def restore(
    aggregated: ArrayRecord,
    template: Template,
    *,
    mean: Mean | None = None,
    stepped: Collection[str] | None = None,
) -> ArrayRecord:
    """Return what a strategy made of a round as a model in the model's own dtypes.

    Parameters
    ----------
    aggregated : ArrayRecord
        What ``aggregate_train`` returned; it stays as it is.
    template : Template
        The model.
    mean : Mean | None (default: None)
        The mean of the round's updates, for the arrays that are not stepped. Without one, all
        arrays are what the strategy made of them.
    stepped : Collection[str] | None (default: None)
        Keys of the arrays that the strategy was allowed to change; None is all.

    Returns
    -------
    ArrayRecord
        Whole numbers are rounded half to even. Keys that the model does not have are kept.

    Examples
    --------
    >>> from flwr.app import Array
    >>> model = Template.of(ArrayRecord({"steps": Array(np.array(7))}))
    >>> restore(ArrayRecord({"steps": Array(np.array(8.5))}), model)["steps"].numpy()
    array(8)
    """
    restored = ArrayRecord()
    for key, array in aggregated.items():
        spec = template.specs.get(key)
        if mean is not None and stepped is not None and key in mean.arrays and key not in stepped:
            restored[key] = encode(mean.arrays[key])
        elif mean is not None and key in mean.arrays and spec is not None and is_wide(spec.dtype):
            found = to_dtype(array.numpy(), spec.dtype)
            restored[key] = encode(_with_all_digits(found, mean.arrays[key]))
        elif spec is None or array.dtype == str(spec.dtype):
            restored[key] = array
        else:
            restored[key] = encode(to_dtype(array.numpy(), spec.dtype))
    return restored


def _with_all_digits(found: NDArray[Any], mean: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers that went through a float64, with the digits that it took off them.

    Where the strategy has made the mean of them, or as far as a float64 goes, it is the mean.
    """
    rounded = to_dtype(mean.astype(np.float64), mean.dtype)
    return np.where(found == rounded, mean, found)
