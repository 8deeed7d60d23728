"""What a round does with admitted updates until Flower's strategy takes its step.

A strategy whose step needs only the weighted mean gets one reply that holds it, folded while
the replies arrived. Any other gets every admitted reply, in the order of the clients' names.
Either way Flower sees replies that cannot trip it: the same record names and the same metric
keys in each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

from fedwaggle.identity import client_order
from fedwaggle.strategy.averaging.arrays import Template, decoded
from fedwaggle.strategy.averaging.kept import Kept
from fedwaggle.strategy.averaging.whole import is_wide
from fedwaggle.strategy.bounds.changes import Ruler, scales_by_key, shortened
from fedwaggle.strategy.bounds.outliers import Terms
from fedwaggle.strategy.layers import layers_of, owner_of, setting_of
from fedwaggle.strategy.replies.admission import Admitted
from fedwaggle.strategy.replies.forms import Form, model_record
from fedwaggle.strategy.replies.messages import records_of
from fedwaggle.strategy.step.aggregation import (
    Fold,
    Mean,
    mean_message,
    restore,
    stepped_keys,
    takes_mean,
)
from fedwaggle.strategy.step.contents import (
    alike,
    hollow,
    metrics_in,
    readable,
    usual,
    with_arrays,
    with_content,
    with_weight,
)
from fedwaggle.strategy.step.metric_functions import metrics_of, whole_of, without_flowers_count
from fedwaggle.strategy.step.odd import without_odd

__all__ = ["Collector", "Step", "collector_for"]

Step = tuple[ArrayRecord | None, Mapping[str, Any] | None]

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
    is_measured: bool = False,
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
    is_measured : bool (default: False)
        Whether changes to the model are measured; one that is not cannot be shortened.
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
    ruler = Ruler(template.averaged, kept.blank(decoded(arrays, template))) if is_measured else None
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
        records = readable(admitted).content.items()
        kept: dict[str, Any] = {name: r for name, r in records if isinstance(r, self._kept)}
        self._contents[client] = type(admitted.message.content)(kept)
        if self._like is None:
            self._like = hollow(admitted.message)

    def accept(self, client: str, terms: Terms) -> None:
        scales = (
            scales_by_key(self.ruler.groups, terms) if self.ruler and terms.is_clipped else None
        )
        self._fold.accept(client, terms.weight, scales)
        self._contents[client] = with_weight(self._contents[client], self._strategy, terms.weight)

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
            metrics_of(self._strategy, _TRAIN_METRICS, lambda _: contents),
            without_flowers_count(),
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
        self._held[admitted.update.client] = replace(admitted, message=readable(admitted))

    def accept(self, client: str, terms: Terms) -> None:
        admitted = self._held.pop(client)
        content = with_weight(admitted.message.content, self._strategy, terms.weight)
        if self.ruler is not None and terms.is_clipped:
            arrays = shortened(admitted.arrays, self.ruler, terms)
            content = with_arrays(content, self._model_in(content), arrays)
            admitted = replace(admitted, arrays=arrays)
        message = with_content(admitted.message, content)
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
        replies = alike(messages, models)
        current = _blanked(self._strategy, self._current, self.kept)
        name = usual(models)
        for reply in replies:
            sent = self.kept.blank_record(cast("ArrayRecord", reply.content[name]))
            reply.content[name] = self._to_step(sent, current)
        with metrics_of(self._strategy, _TRAIN_METRICS, whole_of(messages, replies)):
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
                weight = metrics_in(one.message.content)[weighted_by]
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
        replies = [readable(one) for one in admitted]
        contents = [reply.content for reply in replies]
        if self._form is not Form.ANY:  # Flower's own step wants the same of every client
            models = [next(iter(records_of(reply.content, ArrayRecord))) for reply in replies]
            replies = alike(replies, models)
        with metrics_of(self._strategy, _TRAIN_METRICS, lambda _: contents):
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


def _drop_worst(admitted: dict[str, Admitted[Any]], fewest: int) -> str | None:
    """Take out the reply with the largest number in it, if enough others are left."""
    if len(admitted) <= fewest:
        return None
    worst: str = max(_by_client(admitted), key=_largest_number).update.client
    del admitted[worst]
    return worst


def _largest_number(admitted: Admitted[Any]) -> float:
    """Return the largest of what a reply states and of how far it moves the model."""
    metrics = [v for v in admitted.update.metrics.values() if isinstance(v, int | float)]
    return max(float(abs(number)) for number in (*metrics, *admitted.norms, 0.0))


def _by_client(values: Mapping[str, Any]) -> list[Any]:
    return [values[client] for client in sorted(values, key=client_order)]
