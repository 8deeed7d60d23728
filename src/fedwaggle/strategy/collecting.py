"""What a round does with admitted updates until Flower's strategy takes its step.

A strategy whose step needs only the weighted mean gets one reply that holds it, folded while
the replies arrived. Any other gets every admitted reply, in the order of the clients' names.
Either way Flower sees replies that cannot trip it: the same record names and the same metric
keys in each of them.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
from numpy.typing import NDArray

from fedwaggle.errors import ConfigError
from fedwaggle.identity import client_order
from fedwaggle.refusals import shown
from fedwaggle.strategy.admission import Admitted, AdmittedEvaluation
from fedwaggle.strategy.aggregation import (
    Fold,
    Mean,
    average_metrics,
    mean_message,
    restore,
    stepped_keys,
    takes_mean,
)
from fedwaggle.strategy.changes import Ruler
from fedwaggle.strategy.fold import to_dtype
from fedwaggle.strategy.messages import records_of
from fedwaggle.strategy.npy import Arrays, Template, encode
from fedwaggle.strategy.outliers import OutlierRule, Terms, bounded_weights
from fedwaggle.strategy.settings import owner_of, setting_of

__all__ = ["Collector", "aggregate_evaluations", "as_metrics", "collector_for", "typical_value"]

Step = tuple[ArrayRecord | None, Mapping[str, Any] | None]
MetricsFn = Callable[[list[RecordDict], str], MetricRecord]

_TRAIN_METRICS = "train_metrics_aggr_fn"
_NO_ARRAYS = (MetricRecord, ConfigRecord)


class Collector(Protocol):
    """Takes a round's updates as they are admitted."""

    template: Template

    def hold(self, admitted: Admitted[Any]) -> None:
        """Take an update that is not decided on yet."""

    def accept(self, client: str, terms: Terms) -> None:
        """Let an update that is held into the step."""

    def skip(self, client: str) -> None:
        """Note that a client's update will not come, or is held and not used."""

    def drop_worst(self, fewest: int) -> str | None:
        """Drop the accepted update that is the most out of line, and return whose it was.

        None if fewer than so many would be left, or if they are in the mean already.
        """

    def step(self, server_round: int) -> Step:
        """Let the strategy make a new model of what was taken."""

    def close(self) -> None:
        """Give back what is held for a step that may not come."""


def collector_for(
    strategy: Strategy,
    names: Sequence[str],
    arrays: ArrayRecord,
    template: Template,
    *,
    trainable: frozenset[str] | None,
    ruler: Ruler | None = None,
    fold_buffer: int,
    spill_dir: Path | None,
) -> Collector:
    """Return the collector that a strategy needs.

    Parameters
    ----------
    strategy : Strategy
        The strategy.
    names : Sequence[str]
        The cohort, in the order of summation.
    arrays : ArrayRecord
        The global model that the cohort was sent.
    template : Template
        Its keys, shapes and dtypes.
    trainable : frozenset[str] | None
        Names of the arrays that a server optimizer may step; None is all but BatchNorm's buffers.
    ruler : Ruler | None (default: None)
        Holds the model's arrays; needed if an update may be shortened.
    fold_buffer : int
        Bytes of early replies that may wait in memory.
    spill_dir : Path | None
        Where those past it wait; None is the system's folder for temporary files.
    """
    stepped = stepped_keys(strategy, template, trainable)
    if not takes_mean(strategy):
        return _Keeping(strategy, template, current=arrays, stepped=stepped, ruler=ruler)
    fold = Fold(
        names,
        template,
        buffer_bytes=fold_buffer,
        spill_dir=spill_dir,
        current=ruler.current if ruler else None,
    )
    groups = ruler.groups if ruler else ()
    return _Folding(strategy, template, fold, current=arrays, stepped=stepped, groups=groups)


class _Folding:
    """Folds the updates into their mean: memory follows the model, not the cohort."""

    def __init__(
        self,
        strategy: Strategy,
        template: Template,
        fold: Fold,
        *,
        current: ArrayRecord,
        stepped: frozenset[str],
        groups: Sequence[Sequence[str]],
    ) -> None:
        self.template = template
        self._strategy = strategy
        self._fold = fold
        self._groups = groups
        self._current = current
        self._stepped = stepped
        # A function of the user's may read all records but the arrays, Flower's own the metrics.
        average = getattr(owner_of(strategy, _TRAIN_METRICS), _TRAIN_METRICS, None)
        self._kept = (MetricRecord,) if average is aggregate_metricrecords else _NO_ARRAYS
        self._contents: dict[str, RecordDict] = {}
        self._like: Message | None = None

    def hold(self, admitted: Admitted[Any]) -> None:
        client = admitted.update.client
        self._fold.hold(client, admitted.arrays)
        records = _readable(admitted).content.items()
        kept: dict[str, Any] = {name: r for name, r in records if isinstance(r, self._kept)}
        self._contents[client] = RecordDict(kept)
        if self._like is None:
            self._like = _hollow(admitted.message)

    def accept(self, client: str, terms: Terms) -> None:
        scales = _by_key(self._groups, terms) if terms.is_clipped else None
        self._fold.accept(client, terms.weight, scales)
        self._contents[client] = _weighted(self._contents[client], self._strategy, terms.weight)

    def skip(self, client: str) -> None:
        self._fold.skip(client)
        self._contents.pop(client, None)

    def drop_worst(self, fewest: int) -> str | None:
        """Return None: what is in the mean cannot be taken out of it again."""

    def step(self, server_round: int) -> Step:
        mean = self._fold.finish()
        if mean is None or self._like is None:
            return None, None
        reply = mean_message(
            mean,
            self._like,
            current=self._current,
            stepped=self._stepped,
            weighted_by_key=setting_of(self._strategy, "weighted_by_key", "num-examples"),
        )
        contents = _by_client(self._contents)
        with (
            # Flower passes on the one reply that stands for all.
            _metrics_of(self._strategy, _TRAIN_METRICS, lambda _: contents),
            _without_flowers_count(),
        ):
            arrays, metrics = self._strategy.aggregate_train(server_round, [reply])
        if arrays is None:
            return None, metrics
        return restore(arrays, self.template, mean=mean, stepped=self._stepped), metrics

    def close(self) -> None:
        self._fold.close()


class _Keeping:
    """Keeps every update, for strategies that compare them with each other."""

    def __init__(
        self,
        strategy: Strategy,
        template: Template,
        *,
        current: ArrayRecord,
        stepped: frozenset[str],
        ruler: Ruler | None,
    ) -> None:
        self.template = template
        self._strategy = strategy
        self._current = current
        self._stepped = stepped
        self._ruler = ruler
        self._held: dict[str, Admitted[Any]] = {}
        self._admitted: dict[str, Admitted[Any]] = {}

    def hold(self, admitted: Admitted[Any]) -> None:
        self._held[admitted.update.client] = replace(admitted, message=_readable(admitted))

    def accept(self, client: str, terms: Terms) -> None:
        admitted = self._held.pop(client)
        content = _weighted(admitted.message.content, self._strategy, terms.weight)
        if self._ruler is not None and terms.is_clipped:
            arrays = _shortened(admitted.arrays, self._ruler, terms)
            content = _with_arrays(content, arrays)
            admitted = replace(admitted, arrays=arrays)
        message = _with_content(admitted.message, content)
        self._admitted[client] = replace(admitted, message=message)

    def skip(self, client: str) -> None:
        self._held.pop(client, None)

    def drop_worst(self, fewest: int) -> str | None:
        if len(self._admitted) <= fewest:
            return None
        worst = max(_by_client(self._admitted), key=_largest_number).update.client
        del self._admitted[worst]
        return str(worst)

    def step(self, server_round: int) -> Step:
        admitted = _by_client(self._admitted)
        if not admitted:
            return None, None
        mean = self._mean_of_unstepped(admitted)
        replies = _alike([one.message for one in admitted])
        for reply in replies:
            reply.content["arrays"] = self._to_step(cast("ArrayRecord", reply.content["arrays"]))
        whole = _whole([one.message for one in admitted], replies)
        with _metrics_of(self._strategy, _TRAIN_METRICS, whole):
            arrays, metrics = self._strategy.aggregate_train(server_round, replies)
        if arrays is None:
            return None, metrics
        return restore(arrays, self.template, mean=mean, stepped=self._stepped), metrics

    def close(self) -> None:
        self._held.clear()
        self._admitted.clear()

    def _mean_of_unstepped(self, admitted: Sequence[Admitted[Any]]) -> Mean | None:
        """Return the mean of the arrays that the strategy does not step."""
        specs = self.template.specs
        weighted_by = setting_of(self._strategy, "weighted_by_key", "num-examples")
        unstepped = Template({key: specs[key] for key in specs if key not in self._stepped})
        with Fold([one.update.client for one in admitted], unstepped) as fold:
            for one in admitted:
                weight = _metrics_in(one.message.content)[weighted_by]
                fold.add(one.update.client, one.arrays, cast("float", weight))
            return fold.finish()

    def _to_step(self, sent: ArrayRecord) -> ArrayRecord:
        """Return a client's arrays in the model's order, with those at rest as they were sent."""
        arrays: dict[str, Array] = {
            key: (sent if key in self._stepped else self._current)[key]
            for key in self.template.specs
        }
        return ArrayRecord(arrays)


def _by_key(groups: Sequence[Sequence[str]], terms: Terms) -> dict[str, float]:
    """Return the scale of each array's change."""
    pairs = zip(groups, terms.scales, strict=True)
    return {key: scale for group, scale in pairs for key in group}


def _shortened(arrays: Arrays, ruler: Ruler, terms: Terms) -> Arrays:
    """Return x + s * (w - x) for each array w of a reply, rounded to the model's dtypes."""
    scales = _by_key(ruler.groups, terms)

    def shorten(key: str) -> NDArray[Any]:
        new, old, scale = arrays[key], ruler.current[key], scales[key]
        if scale == 1:
            return new
        if scale == 0:  # a change that is too long to be computed with
            return old
        mean = scale * new.astype(np.float64) + (1 - scale) * old.astype(np.float64)
        return to_dtype(mean, new.dtype)

    return {key: shorten(key) for key in arrays}


def _with_content(message: Message, content: RecordDict) -> Message:
    """Return a reply with another content; the reply keeps its own."""
    other = copy(message)
    other.content = content
    return other


def _with_arrays(content: RecordDict, arrays: Arrays) -> RecordDict:
    """Return a reply's content with other values in its one ArrayRecord."""
    records: dict[str, Any] = dict(content.items())
    for name in records_of(content, ArrayRecord):
        records[name] = ArrayRecord({key: encode(array) for key, array in arrays.items()})
    return RecordDict(records)


def _weighted(content: RecordDict, strategy: Strategy, weight: float) -> RecordDict:
    """Return a reply's content with another weight in its metrics, if it is another."""
    key = setting_of(strategy, "weighted_by_key", "num-examples")
    metrics = _metrics_in(content)
    if metrics[key] == weight:
        return content
    records: dict[str, Any] = dict(content.items())
    for name in records_of(content, MetricRecord):
        records[name] = MetricRecord({**metrics, key: weight})
    return RecordDict(records)


def _largest_number(admitted: Admitted[Any]) -> float:
    """Return the largest of what a reply says and of how far it moves the model."""
    metrics = [v for v in admitted.update.metrics.values() if isinstance(v, int | float)]
    return max(float(abs(number)) for number in (*metrics, *admitted.norms, 0.0))


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
    weights = bounded_weights([cast("float", _metrics_in(one)[key]) for one in sent], rule)
    bounded = [
        _with_content(one.message, _weighted(content, strategy, weight))
        for one, content, weight in zip(in_order, sent, weights, strict=True)
    ]
    replies = _alike(bounded)
    with _metrics_of(strategy, "evaluate_metrics_aggr_fn", _whole(bounded, replies)):
        metrics = strategy.aggregate_evaluate(server_round, replies)
    return dict(metrics or {})


def typical_value(
    evaluations: Sequence[AdmittedEvaluation], metric: str, mode: Literal["max", "min"]
) -> float | None:
    """Return the median of what clients report for a metric; None if none reports a number.

    Each client counts once, whatever its number of examples. Of an even number, the worse of
    the two values in the middle is taken: one client of two cannot make a model the best.
    """
    sent = [_metrics_in(one.message.content).get(metric) for one in evaluations]
    values = [float(value) for value in sent if isinstance(value, int | float)]
    if not values:
        return None
    return statistics.median_low(values) if mode == "max" else statistics.median_high(values)


def as_metrics(source: str, said: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the user's code said of a round as numbers that Flower's records take.

    Parameters
    ----------
    source : str
        The method that said it.
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


@contextmanager
def _metrics_of(
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
    average = _average if chosen is aggregate_metricrecords else chosen
    setattr(owner, attribute, lambda contents, key: average(list(sent(contents)), key))
    try:
        yield
    finally:
        setattr(owner, attribute, chosen)


def _whole(
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


@contextmanager
def _without_flowers_count() -> Iterator[None]:
    """Keep Flower from logging that it received one result: it is the mean of all."""

    def is_no_count(record: logging.LogRecord) -> bool:
        return "Received %s results" not in str(record.msg)

    flower = logging.getLogger("flwr")
    flower.addFilter(is_no_count)
    try:
        yield
    finally:
        flower.removeFilter(is_no_count)


def _average(contents: list[RecordDict], key: str) -> MetricRecord:
    sent = [_metrics_in(content) for content in contents]
    return average_metrics([(dict(m), float(m[key])) for m in sent], weighted_by_key=key)  # type: ignore[arg-type]


def _metrics_in(content: RecordDict) -> MetricRecord:
    return next(iter(records_of(content, MetricRecord).values()))


def _alike(messages: Sequence[Message]) -> list[Message]:
    """Return replies with the same record names, and the metrics that all of them have."""
    sent = [_metrics_in(message.content) for message in messages]
    common = [key for key in sent[0] if all(key in metrics for metrics in sent)]
    alike = []
    for message, metrics in zip(messages, sent, strict=True):
        records: dict[str, Any] = dict(records_of(message.content, ConfigRecord))
        for arrays in records_of(message.content, ArrayRecord).values():
            records["arrays"] = arrays
        records["metrics"] = MetricRecord({key: metrics[key] for key in common})
        alike.append(_with_content(message, RecordDict(records)))
    return alike


def _readable(admitted: Admitted[Any]) -> Message:
    """Return a reply without its metadata if that was refused: nobody shall decode it now."""
    if admitted.update.metadata_error is None:
        return admitted.message
    records = dict(admitted.message.content.items())
    records.pop("metadata", None)
    return _with_content(admitted.message, RecordDict(records))


def _hollow(message: Message) -> Message:
    """Return a message with the names of its records, and nothing in them that takes room."""
    arrays = {name: ArrayRecord() for name in records_of(message.content, ArrayRecord)}
    content = RecordDict({**arrays, **records_of(message.content, MetricRecord)})
    return _with_content(message, content)


def _by_client(values: Mapping[str, Any]) -> list[Any]:
    return [values[client] for client in sorted(values, key=client_order)]
