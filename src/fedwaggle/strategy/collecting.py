"""What a round does with admitted updates until Flower's strategy takes its step.

A strategy whose step needs only the weighted mean gets one reply that holds it, folded while
the replies arrived. Any other gets every admitted reply, in the order of the clients' names.
Either way Flower sees replies that cannot trip it: the same record names and the same metric
keys in each of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

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
from fedwaggle.strategy.messages import records_of
from fedwaggle.strategy.npy import Template
from fedwaggle.strategy.settings import owner_of, setting_of

__all__ = ["Collector", "aggregate_evaluations", "as_metrics", "collector_for"]

Step = tuple[ArrayRecord | None, Mapping[str, Any] | None]
MetricsFn = Callable[[list[RecordDict], str], MetricRecord]

_TRAIN_METRICS = "train_metrics_aggr_fn"
_NO_ARRAYS = (MetricRecord, ConfigRecord)


class Collector(Protocol):
    """Takes a round's updates as they are admitted."""

    template: Template

    def add(self, admitted: Admitted[Any]) -> None:
        """Take an update."""

    def skip(self, client: str) -> None:
        """Note that a client's update will not come."""

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
    fold_buffer : int
        Bytes of early replies that may wait in memory.
    spill_dir : Path | None
        Where those past it wait; None is the system's folder for temporary files.
    """
    stepped = stepped_keys(strategy, template, trainable)
    if not takes_mean(strategy):
        return _Keeping(strategy, template, current=arrays, stepped=stepped)
    fold = Fold(names, template, buffer_bytes=fold_buffer, spill_dir=spill_dir)
    return _Folding(strategy, template, fold, current=arrays, stepped=stepped)


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
    ) -> None:
        self.template = template
        self._strategy = strategy
        self._fold = fold
        self._current = current
        self._stepped = stepped
        # A function of the user's may read all records but the arrays, Flower's own the metrics.
        average = getattr(owner_of(strategy, _TRAIN_METRICS), _TRAIN_METRICS, None)
        self._kept = (MetricRecord,) if average is aggregate_metricrecords else _NO_ARRAYS
        self._contents: dict[str, RecordDict] = {}
        self._like: Message | None = None

    def add(self, admitted: Admitted[Any]) -> None:
        update = admitted.update
        self._fold.add(update.client, admitted.arrays, update.num_examples)
        records = _readable(admitted).content.items()
        kept: dict[str, Any] = {name: r for name, r in records if isinstance(r, self._kept)}
        self._contents[update.client] = RecordDict(kept)
        if self._like is None:
            self._like = _hollow(admitted.message)

    def skip(self, client: str) -> None:
        self._fold.skip(client)

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
            _metrics_of(self._strategy, _TRAIN_METRICS, contents),
            _without_flowers_count(),
        ):
            arrays, metrics = self._strategy.aggregate_train(server_round, [reply])
        if arrays is None:
            return None, metrics
        return restore(arrays, self.template, mean=mean, stepped=self._stepped), metrics

    def close(self) -> None:
        self._fold.close()


class _Keeping:
    """Keeps every update, for strategies that compare them: memory follows the cohort here."""

    def __init__(
        self,
        strategy: Strategy,
        template: Template,
        *,
        current: ArrayRecord,
        stepped: frozenset[str],
    ) -> None:
        self.template = template
        self._strategy = strategy
        self._current = current
        self._stepped = stepped
        self._admitted: dict[str, Admitted[Any]] = {}

    def add(self, admitted: Admitted[Any]) -> None:
        self._admitted[admitted.update.client] = replace(admitted, message=_readable(admitted))

    def skip(self, client: str) -> None:
        """Nothing waits for anybody here."""

    def step(self, server_round: int) -> Step:
        admitted = _by_client(self._admitted)
        if not admitted:
            return None, None
        mean = self._mean_of_unstepped(admitted)
        replies = _alike([one.message for one in admitted])
        for reply in replies:
            reply.content["arrays"] = self._to_step(cast("ArrayRecord", reply.content["arrays"]))
        contents = [one.message.content for one in admitted]
        with _metrics_of(self._strategy, _TRAIN_METRICS, contents):
            arrays, metrics = self._strategy.aggregate_train(server_round, replies)
        if arrays is None:
            return None, metrics
        return restore(arrays, self.template, mean=mean, stepped=self._stepped), metrics

    def close(self) -> None:
        self._admitted.clear()

    def _mean_of_unstepped(self, admitted: Sequence[Admitted[Any]]) -> Mean | None:
        """Return the mean of the arrays that the strategy does not step."""
        specs = self.template.specs
        unstepped = Template({key: specs[key] for key in specs if key not in self._stepped})
        with Fold([one.update.client for one in admitted], unstepped) as fold:
            for one in admitted:
                fold.add(one.update.client, one.arrays, one.update.num_examples)
            return fold.finish()

    def _to_step(self, sent: ArrayRecord) -> ArrayRecord:
        """Return a client's arrays in the model's order, with those at rest as they were sent."""
        arrays: dict[str, Array] = {
            key: (sent if key in self._stepped else self._current)[key]
            for key in self.template.specs
        }
        return ArrayRecord(arrays)


def aggregate_evaluations(
    strategy: Strategy, server_round: int, evaluations: Sequence[AdmittedEvaluation]
) -> dict[str, Any]:
    """Let a strategy aggregate the clients' evaluations, in the order of their names."""
    if not evaluations:
        return {}
    in_order = sorted(evaluations, key=lambda one: client_order(one.client))
    contents = [one.message.content for one in in_order]
    with _metrics_of(strategy, "evaluate_metrics_aggr_fn", contents):
        metrics = strategy.aggregate_evaluate(server_round, _alike([e.message for e in in_order]))
    return dict(metrics or {})


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
    strategy: Strategy, attribute: str, contents: Sequence[RecordDict]
) -> Iterator[None]:
    """Let the strategy average the metrics of all clients, whatever replies it is given.

    Flower's own average wants the same keys from every client; ours takes the keys that there
    are. A function that the user has set is called with everything that the clients sent.
    """
    owner = owner_of(strategy, attribute)
    chosen: MetricsFn | None = getattr(owner, attribute, None)
    if chosen is None:
        yield
        return
    average = _average if chosen is aggregate_metricrecords else chosen
    setattr(owner, attribute, lambda _, key: average(list(contents), key))
    try:
        yield
    finally:
        setattr(owner, attribute, chosen)


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
        reply = copy(message)
        reply.content = RecordDict(records)
        alike.append(reply)
    return alike


def _readable(admitted: Admitted[Any]) -> Message:
    """Return a reply without its metadata if that was refused: nobody shall decode it now."""
    if admitted.update.metadata_error is None:
        return admitted.message
    records = dict(admitted.message.content.items())
    records.pop("metadata", None)
    reply = copy(admitted.message)
    reply.content = RecordDict(records)
    return reply


def _hollow(message: Message) -> Message:
    """Return a message with the names of its records, and nothing in them that takes room."""
    hollow = copy(message)
    arrays = {name: ArrayRecord() for name in records_of(message.content, ArrayRecord)}
    hollow.content = RecordDict({**arrays, **records_of(message.content, MetricRecord)})
    return hollow


def _by_client(values: Mapping[str, Any]) -> list[Any]:
    return [values[client] for client in sorted(values, key=client_order)]
