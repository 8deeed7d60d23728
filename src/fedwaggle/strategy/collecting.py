"""What a round does with admitted updates until Flower's strategy takes its step.

A strategy whose step needs only the weighted mean gets one reply that holds it, folded while
the replies arrived. Any other gets every admitted reply, in the order of the clients' names.
Either way Flower sees replies that cannot trip it: the same record names and the same metric
keys in each of them.
"""

from __future__ import annotations

import logging
import statistics
from collections import Counter
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
from fedwaggle.strategy.admission import Admitted, AdmittedEvaluation, PartialContent
from fedwaggle.strategy.aggregation import (
    Fold,
    Mean,
    average_metrics,
    layers_of,
    mean_message,
    restore,
    stepped_keys,
    takes_mean,
)
from fedwaggle.strategy.changes import Ruler
from fedwaggle.strategy.fold import to_dtype
from fedwaggle.strategy.forms import Form, model_record
from fedwaggle.strategy.kept import Kept
from fedwaggle.strategy.messages import records_of
from fedwaggle.strategy.npy import Arrays, Template, decoded, encode, flat_reals, real_dtype
from fedwaggle.strategy.odd import without_odd
from fedwaggle.strategy.outliers import OutlierRule, Terms, bounded_weights
from fedwaggle.strategy.settings import owner_of, setting_of
from fedwaggle.strategy.whole import is_wide

__all__ = ["Collector", "aggregate_evaluations", "as_metrics", "collector_for", "typical_value"]

Step = tuple[ArrayRecord | None, Mapping[str, Any] | None]
MetricsFn = Callable[[list[RecordDict], str], MetricRecord]

_TRAIN_METRICS = "train_metrics_aggr_fn"
_HELD_MODEL = "current_arrays"  # in FedOpt, FedAvgM, QFedAvg and the privacy strategies
_NO_ARRAYS = (MetricRecord, ConfigRecord)


class Collector(Protocol):
    """Takes a round's updates as they are admitted."""

    template: Template
    kept: Kept
    ruler: Ruler | None

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
    is_bounded: bool = False,
    fold_buffer: int,
    spill_dir: Path | None,
    form: Form = Form.MODEL,
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
    is_bounded : bool (default: False)
        Whether changes are measured, and may be shortened.
    fold_buffer : int
        Bytes of early replies that may wait in memory.
    spill_dir : Path | None
        Where those past it wait; None is the system's folder for temporary files.
    form : Form (default: Form.MODEL)
        Which arrays the strategy reads.
    """
    if not form.is_fixed:
        return _Passing(strategy, arrays, form)
    stepped = stepped_keys(strategy, template, trainable)
    trained = template.trainable if trainable is None else template.trainable & trainable
    kept = Kept(arrays, template, trained)
    ruler = Ruler(template.averaged, kept.blank(decoded(arrays, template))) if is_bounded else None
    if not takes_mean(strategy):
        return _Keeping(strategy, template, kept, current=arrays, stepped=stepped, ruler=ruler)
    fold = Fold(
        names,
        template.averaged,
        buffer_bytes=fold_buffer,
        spill_dir=spill_dir,
        current=ruler.current if ruler else None,
    )
    return _Folding(strategy, template, kept, fold, current=arrays, stepped=stepped, ruler=ruler)


class _Folding:
    """Folds the updates into their mean: memory follows the model, not the cohort."""

    def __init__(
        self,
        strategy: Strategy,
        template: Template,
        kept: Kept,
        fold: Fold,
        *,
        current: ArrayRecord,
        stepped: frozenset[str],
        ruler: Ruler | None,
    ) -> None:
        self.template = template
        self.kept = kept
        self.ruler = ruler
        self._strategy = strategy
        self._fold = fold
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
        self._contents[client] = type(admitted.message.content)(kept)
        if self._like is None:
            self._like = _hollow(admitted.message)

    def accept(self, client: str, terms: Terms) -> None:
        is_clipped = self.ruler is not None and terms.is_clipped
        scales = _by_key(self.ruler.groups, terms) if self.ruler and is_clipped else None
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
            current=_blanked(self._strategy, self._current, self.kept),
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
        new = restore(arrays, self.template, mean=mean, stepped=self._stepped)
        return self.kept.put_back(new), metrics

    def close(self) -> None:
        self._fold.close()


class _Keeping:
    """Keeps every update, for strategies that compare them: memory follows the cohort here."""

    def __init__(
        self,
        strategy: Strategy,
        template: Template,
        kept: Kept,
        *,
        current: ArrayRecord,
        stepped: frozenset[str],
        ruler: Ruler | None,
    ) -> None:
        self.template = template
        self.kept = kept
        self._strategy = strategy
        self._current = current
        self._stepped = stepped
        self.ruler = ruler
        self._held: dict[str, Admitted[Any]] = {}
        self._admitted: dict[str, Admitted[Any]] = {}

    def hold(self, admitted: Admitted[Any]) -> None:
        self._held[admitted.update.client] = replace(admitted, message=_readable(admitted))

    def accept(self, client: str, terms: Terms) -> None:
        admitted = self._held.pop(client)
        content = _weighted(admitted.message.content, self._strategy, terms.weight)
        if self.ruler is not None and terms.is_clipped:
            arrays = _shortened(admitted.arrays, self.ruler, terms)
            content = _with_arrays(content, self._model_in(content), arrays)
            admitted = replace(admitted, arrays=arrays)
        message = _with_content(admitted.message, content)
        self._admitted[client] = replace(admitted, message=message)

    def skip(self, client: str) -> None:
        self._held.pop(client, None)

    def drop_worst(self, fewest: int) -> str | None:
        return _drop_worst(self._admitted, fewest)

    def step(self, server_round: int) -> Step:
        admitted = without_odd(_by_client(self._admitted), server_round)
        if not admitted:
            return None, None
        mean = self._mean_of_unstepped(admitted)
        messages = [one.message for one in admitted]
        models = [self._model_in(message.content) for message in messages]
        replies = _alike(messages, models)
        current = _blanked(self._strategy, self._current, self.kept)
        name = _usual(models)
        for reply in replies:
            sent = self.kept.blank_record(cast("ArrayRecord", reply.content[name]))
            reply.content[name] = self._to_step(sent, current)
        with _metrics_of(self._strategy, _TRAIN_METRICS, _whole(messages, replies)):
            arrays, metrics = self._strategy.aggregate_train(server_round, replies)
        if arrays is None:
            return None, metrics
        new = restore(arrays, self.template, mean=mean, stepped=self._stepped)
        return self.kept.put_back(new), metrics

    def close(self) -> None:
        self._held.clear()
        self._admitted.clear()

    def _model_in(self, content: RecordDict) -> str | None:
        """Return the name of the record that is the model."""
        key = setting_of(self._strategy, "arrayrecord_key", "arrays")
        return model_record(content, self.template, key)

    def _mean_of_unstepped(self, admitted: Sequence[Admitted[Any]]) -> Mean | None:
        """Return the mean of the arrays that the strategy does not step, or not in all digits."""
        weighted_by = setting_of(self._strategy, "weighted_by_key", "num-examples")
        folded = {
            key: spec
            for key, spec in self.template.averaged.specs.items()
            if key not in self._stepped or is_wide(spec.dtype)
        }
        with Fold([one.update.client for one in admitted], Template(folded)) as fold:
            for one in admitted:
                weight = _metrics_in(one.message.content)[weighted_by]
                fold.add(one.update.client, one.arrays, cast("float", weight))
            return fold.finish()

    def _to_step(self, sent: ArrayRecord, current: ArrayRecord) -> ArrayRecord:
        """Return a client's arrays in the model's order, with those at rest as they were sent."""
        arrays: dict[str, Array] = {
            key: (sent if key in self._stepped else current)[key] for key in self.template.specs
        }
        return ArrayRecord(arrays)


class _Passing:
    """Passes every update on as it came, to a strategy whose model is no fixed set of arrays."""

    def __init__(self, strategy: Strategy, current: ArrayRecord, form: Form) -> None:
        self.template = Template({})
        self.kept = Kept(ArrayRecord(), self.template)
        self.ruler: Ruler | None = None
        self._strategy = strategy
        self._current = current
        self._form = form
        self._held: dict[str, Admitted[Any]] = {}
        self._admitted: dict[str, Admitted[Any]] = {}

    def hold(self, admitted: Admitted[Any]) -> None:
        self._held[admitted.update.client] = admitted

    def accept(self, client: str, terms: Terms) -> None:
        self._admitted[client] = self._held.pop(client)

    def skip(self, client: str) -> None:
        self._held.pop(client, None)

    def drop_worst(self, fewest: int) -> str | None:
        return _drop_worst(self._admitted, fewest)

    def step(self, server_round: int) -> Step:
        admitted = _by_client(self._admitted)
        if not admitted:
            return None, None
        replies = [_readable(one) for one in admitted]
        contents = [reply.content for reply in replies]
        if self._form is not Form.ANY:  # Flower's own step wants the same of every client
            models = [next(iter(records_of(reply.content, ArrayRecord))) for reply in replies]
            replies = _alike(replies, models)
        with _metrics_of(self._strategy, _TRAIN_METRICS, lambda _: contents):
            arrays, metrics = self._strategy.aggregate_train(server_round, replies)
        # A step without arrays is a step, too: it may count, say, and train nothing.
        return self._current if arrays is None else arrays, metrics

    def close(self) -> None:
        self._admitted.clear()


def _blanked(strategy: Strategy, current: ArrayRecord, kept: Kept) -> ArrayRecord:
    """Return the global model with 0 for what is not finite in it, and give it to the strategy.

    Flower's strategies that look at a change hold the model that it is a change of.
    """
    if not kept.has_holes:
        return current
    for layer in layers_of(strategy):
        held = vars(layer).get(_HELD_MODEL)
        if isinstance(held, ArrayRecord):
            setattr(layer, _HELD_MODEL, kept.blank_record(held))
        elif isinstance(held, Mapping):
            setattr(layer, _HELD_MODEL, kept.blank(held))
    return kept.blank_record(current)


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
        parts = [flat_reals(array).astype(np.float64) for array in (new, old)]
        mean = to_dtype(scale * parts[0] + (1 - scale) * parts[1], real_dtype(new.dtype))
        return mean.view(new.dtype).reshape(new.shape)

    return {key: shorten(key) for key in arrays}


def _with_content(message: Message, content: RecordDict) -> Message:
    """Return a reply with another content; the reply keeps its own."""
    other = copy(message)
    other.content = content
    return other


def _with_arrays(content: RecordDict, name: str | None, arrays: Arrays) -> RecordDict:
    """Return a reply's content with other values in the ArrayRecord of this name."""
    records: dict[str, Any] = dict(content.items())
    changed = {key: encode(array) for key, array in arrays.items()}
    records[name or ""] = ArrayRecord({**records[name or ""], **changed})
    return type(content)(records)


def _weighted(content: RecordDict, strategy: Strategy, weight: float) -> RecordDict:
    """Return a reply's content with another weight in its metrics, if it is another."""
    key = setting_of(strategy, "weighted_by_key", "num-examples")
    metrics = _metrics_in(content)  # a reply of a strategy that reads it itself may lack the weight
    if metrics.get(key, weight) == weight:
        return content
    records: dict[str, Any] = dict(content.items())
    for name in records_of(content, MetricRecord):
        records[name] = MetricRecord({**metrics, key: weight})
    return type(content)(records)


def _drop_worst(admitted: dict[str, Admitted[Any]], fewest: int) -> str | None:
    """Take out the reply with the largest number in it, if enough others are left."""
    if len(admitted) <= fewest:
        return None
    worst: str = max(_by_client(admitted), key=_largest_number).update.client
    del admitted[worst]
    return worst


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
    weights = bounded_weights([cast("float", _metrics_in(one).get(key, 1)) for one in sent], rule)
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
    average = _average if chosen is aggregate_metricrecords else _of_whole(chosen)
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


def _of_whole(average: MetricsFn) -> MetricsFn:
    """Let a user's function see only clients without a dropped metric: it may read that one."""

    def average_whole(contents: list[RecordDict], key: str) -> MetricRecord:
        whole = [content for content in contents if not isinstance(content, PartialContent)]
        return average(whole, key) if whole else MetricRecord()

    return average_whole


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
    sent = [metrics for metrics in map(_metrics_in, contents) if key in metrics]
    return average_metrics([(dict(m), float(m[key])) for m in sent], weighted_by_key=key)  # type: ignore[arg-type]


def _metrics_in(content: RecordDict) -> MetricRecord:
    return next(iter(records_of(content, MetricRecord).values()), MetricRecord())


def _alike(messages: Sequence[Message], models: Sequence[str | None] = ()) -> list[Message]:
    """Return replies with the same record names, and the metrics that all of them have.

    Each record's name is the one that most clients gave it, so that a strategy finds it.

    Parameters
    ----------
    messages : Sequence[Message]
        The replies; they stay as they are.
    models : Sequence[str | None]
        For each the name of the ArrayRecord that is the model; none for an evaluation.
    """
    sent = [_metrics_in(message.content) for message in messages]
    common = [key for key in sent[0] if all(key in metrics for metrics in sent)]
    names = [next(iter(records_of(m.content, MetricRecord)), None) for m in messages]
    alike = []
    for message, metrics, own, model in zip(
        messages, sent, names, models or [None] * len(messages), strict=True
    ):
        records: dict[str, Any] = dict(message.content.items())
        arrays = None if model is None else records.pop(model)
        records.pop(own or "", None)
        if arrays is not None:
            records[_usual(models)] = arrays
        records[_usual(names)] = MetricRecord({key: metrics[key] for key in common})
        alike.append(_with_content(message, RecordDict(records)))
    return alike


def _usual(names: Sequence[str | None]) -> str:
    """Return the most common name; of several, the one that comes first."""
    return Counter(name for name in names if name is not None).most_common(1)[0][0]


def _readable(admitted: Admitted[Any]) -> Message:
    """Return a reply without its metadata if that was refused: nobody shall decode it now."""
    if admitted.update.metadata_error is None:
        return admitted.message
    records = dict(admitted.message.content.items())
    records.pop("metadata", None)
    return _with_content(admitted.message, type(admitted.message.content)(records))


def _hollow(message: Message) -> Message:
    """Return a message with the names of its records, and nothing in them that takes room."""
    arrays = {name: ArrayRecord() for name in records_of(message.content, ArrayRecord)}
    content = RecordDict({**arrays, **records_of(message.content, MetricRecord)})
    return _with_content(message, content)


def _by_client(values: Mapping[str, Any]) -> list[Any]:
    return [values[client] for client in sorted(values, key=client_order)]
