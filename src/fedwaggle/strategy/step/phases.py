"""The two phases of a round: a cohort trains the model, and a cohort evaluates it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence, Sized
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from flwr.app import ArrayRecord

from fedwaggle.grids import engine_name, is_simulated
from fedwaggle.strategy.averaging.arrays import Template
from fedwaggle.strategy.bounds.drift import Drift
from fedwaggle.strategy.bounds.outliers import Bounds, OutlierRule
from fedwaggle.strategy.codes import Code, Refused
from fedwaggle.strategy.cohort.drawing import Cohort, Phase, ask, draw
from fedwaggle.strategy.cohort.labels import LabelCensus
from fedwaggle.strategy.cohort.roster import Roster
from fedwaggle.strategy.cohort.waiting import Waiting
from fedwaggle.strategy.exchange import Arrival
from fedwaggle.strategy.journal import Journal
from fedwaggle.strategy.layers import setting_of
from fedwaggle.strategy.plan import Hooks, Plan, Settings
from fedwaggle.strategy.replies.admission import (
    AdmittedEvaluation,
    Limits,
    admit,
    admit_evaluation,
)
from fedwaggle.strategy.replies.forms import Form, is_overridden
from fedwaggle.strategy.replies.shelf import MetadataShelf
from fedwaggle.strategy.state import RunState
from fedwaggle.strategy.step.aggregation import is_robust, needs_change, required_metrics
from fedwaggle.strategy.step.collecting import Collector, collector_for
from fedwaggle.strategy.step.contents import metrics_in
from fedwaggle.strategy.step.evaluations import (
    aggregate_evaluations,
    leading_metrics,
    typical_value,
)
from fedwaggle.strategy.step.intake import Intake
from fedwaggle.strategy.step.metrics import as_metrics, warn_of_dropped
from fedwaggle.strategy.step.stepping import take_step
from fedwaggle.strategy.updates import ClientUpdate, Evaluation, Quarantined, Training

__all__ = ["Phases", "with_metadata"]

logger = logging.getLogger("flwr.fedwaggle.strategy")

M = TypeVar("M")

_STEP_NOT_FINITE = Refused(
    Code.STEP_NOT_FINITE,
    "the step with this reply left NaN or an infinity, and the step without it did not; its "
    "metrics or its change are too large",
)


class Phases(Generic[M]):
    """The phases of each round of a run.

    Parameters
    ----------
    strategy : Hooks[M]
        The Flower strategy, with its hooks.
    settings : Settings[M]
        What the mixin knows besides.
    journal : Journal
        Records what happens.
    roster : Roster
        The nodes.
    plan : Plan
        What was asked for.
    """

    def __init__(
        self,
        strategy: Hooks[M],
        settings: Settings[M],
        journal: Journal,
        roster: Roster,
        plan: Plan,
    ) -> None:
        self._strategy = strategy
        self._settings = settings
        self._rules = settings.rules
        self._journal = journal
        self._roster = roster
        self._plan = plan
        code = settings.run.request.code if settings.run else ""
        self._waiting = Waiting(plan.timeout, engine_name(roster.grid), code)
        self._census = LabelCensus(roster.grid, settings.rules.node_timeout)

    def train(self, state: RunState) -> Training[M]:
        """Train a cohort: draw, send, admit each reply as it arrives, aggregate."""
        server_round = state.server_round + 1
        template = Template.of(state.arrays)  # before anybody is sent a model that cannot be used
        self._roster.ask_again()
        cohort = self._draw("train", server_round, state)
        self._count_labels(server_round)
        rate, clients = cohort.learning_rate, cohort.clients
        self._journal.round_started(
            server_round,
            learning_rate=rate,
            clients=[client for client, _ in cohort.members],
            available=cohort.available,
            cooling_down=cohort.resting,
            bytes_down=cohort.bytes_down,
        )
        usable: set[str] = set()
        replies = self._ask(cohort, usable)
        del cohort  # its messages hold the model
        collector = self._collector(clients, state.arrays, template)
        with closing(collector):
            intake = self._intake(server_round, clients, collector, usable)
            for client, arrival in replies:
                intake.take(client, arrival)
            intake.finish()
            dropped = {update.client: update.dropped_metrics for update in intake.updates}
            warn_of_dropped("train", server_round, dropped)
            fewest = self.fewest_updates(len(clients))
            arrays, metrics = self._aggregate(server_round, intake, collector, fewest)
        updates, quarantined = intake.updates, intake.quarantined
        answered = {u.client for u in updates} | {q.client for q in quarantined}
        return Training(
            learning_rate=rate,
            updates=updates,
            quarantined=quarantined,
            missing=[name for name in clients if name not in answered],
            arrays=arrays,
            metrics=metrics,
            skipped=arrays is None,
            cosines=intake.cosines(),
        )

    def evaluate(self, state: RunState) -> Evaluation:
        """Let a cohort evaluate the model: draw, send, admit, aggregate."""
        server_round, limits = state.server_round, self._limits("evaluate")
        cohort = self._draw("evaluate", server_round, state)
        admitted: list[AdmittedEvaluation] = []
        quarantined: list[Quarantined] = []
        for client, arrival in self._ask(cohort, admitted):
            reply = admit_evaluation(arrival, client=client, limits=limits)
            if isinstance(reply, Quarantined):
                self._journal.quarantined(server_round, reply, "evaluate")
                quarantined.append(reply)
            else:
                self._journal.evaluation(server_round, client, metrics_in(reply.message.content))
                admitted.append(reply)
        dropped = {reply.client: reply.dropped_metrics for reply in admitted}
        warn_of_dropped("evaluate", server_round, dropped)
        answered = {one.client for one in admitted} | {bad.client for bad in quarantined}
        rule = self._rules.outliers
        metrics = aggregate_evaluations(self._strategy, server_round, admitted, rule)
        best = self._journal.best_rule
        metric = best.metric_of(leading_metrics(admitted, metrics), state.best)
        typical = typical_value(admitted, metric, best.mode_of(metric)) if rule.share else None
        return Evaluation(
            quarantined=quarantined,
            missing=[name for name in cohort.clients if name not in answered],
            metrics=metrics,
            typical={} if typical is None else {metric: typical},
        )

    def _count_labels(self, server_round: int) -> None:
        """Record what nodes that are new here train on; in a simulation that is known already."""
        run = self._settings.run
        if run is None or run.count_labels is None or is_simulated(self._roster.grid):
            return
        counted = self._census.take(self._roster.refresh())
        clients = {self._roster.name(node_id): counts for node_id, counts in counted.items()}
        self._journal.labels_counted(server_round, clients)

    def _ask(self, cohort: Cohort, usable: Sized) -> Iterator[tuple[str, Arrival]]:
        seconds = self._waiting.seconds(cohort.clients)
        return self._waiting.timed(
            ask(cohort, self._roster, timeout=seconds, rules=self._rules, usable=usable)
        )

    def fewest_updates(self, asked: int | None = None) -> int:
        """Return how many updates a step needs; a strategy may ask fewer clients than it awaits."""
        fewest = max(1, setting_of(self._strategy, "min_train_nodes", 0))
        return fewest if asked is None else min(fewest, max(1, asked))

    def _draw(self, phase: Phase, server_round: int, state: RunState) -> Cohort:
        plan = self._plan
        cohort = draw(
            self._strategy,
            phase,
            server_round,
            arrays=state.arrays,
            config=plan.train_config if phase == "train" else plan.evaluate_config,
            roster=self._roster,
            resting=state.attendance.resting(server_round),
            node_timeout=self._rules.node_timeout,
            seed=self._settings.seed,
            notices=self._waiting.notices,
        )
        if reason := self._roster.why_not_repeatable():
            self._journal.not_repeatable(server_round, "names", reason)
        return cohort

    def _collector(
        self, clients: Sequence[str], arrays: ArrayRecord, template: Template
    ) -> Collector:
        """Return what the updates go into; it takes its memory now, while the clients train."""
        return collector_for(
            self._strategy,
            clients,
            arrays,
            template,
            trainable=self._settings.trainable,
            is_measured=self._outlier_rule.share > 0 or needs_change(self._strategy),
            fold_buffer=self._rules.fold_buffer,
            spill_dir=self._folder,
            form=self._settings.form,
        )

    def _intake(
        self, server_round: int, clients: Sequence[str], collector: Collector, usable: set[str]
    ) -> Intake[M]:
        contract, ruler = self._settings.contract, collector.ruler
        judge = partial(
            admit,
            server_round=server_round,
            template=collector.template,
            limits=self._limits("train"),
            contract=contract,
            kept=collector.kept,
            ruler=ruler,
        )
        return Intake(
            server_round,
            judge=judge,
            bounds=Bounds(self._outlier_rule, len(clients)),
            collector=collector,
            drift=Drift(ruler.groups[0], ruler.current, clients) if ruler else None,
            journal=self._journal,
            shelf=MetadataShelf(contract, self._rules.metadata_budget, self._folder),
            usable=usable,
        )

    def _aggregate(
        self, server_round: int, intake: Intake[M], collector: Collector, fewest: int
    ) -> tuple[ArrayRecord | None, dict[str, Any]]:
        """Let the subclass read the metadata, and Flower's strategy take its step."""
        if len(intake.updates) < fewest:
            return None, {}
        logger.info("aggregate_train: %d updates admitted", len(intake.updates))
        said = self._strategy.on_train_metadata(server_round, with_metadata(intake.updates))
        metrics = as_metrics("on_train_metadata", said)
        step, dropped = take_step(self._strategy, collector, server_round, fewest)
        intake.drop(dropped, _STEP_NOT_FINITE)
        arrays, averaged = step
        return arrays, {**as_metrics("aggregate_train", averaged), **metrics}

    @property
    def _folder(self) -> Path | None:
        """Where files of a round go: /tmp may be memory itself."""
        return self._settings.run.path if self._settings.run else None

    @property
    def _outlier_rule(self) -> OutlierRule:
        """The bounds on updates; none where the strategy bounds them, or has no fixed model."""
        is_bounded = self._settings.form.is_fixed and not is_robust(self._strategy)
        return self._rules.outliers if is_bounded else OutlierRule(share=0)

    def _limits(self, phase: Phase) -> Limits:
        strategy, rules = self._strategy, self._rules
        return Limits(
            max_num_examples=rules.max_num_examples,
            weighted_by_key=setting_of(strategy, "weighted_by_key", "num-examples"),
            on_bad_metadata=rules.on_bad_metadata,
            max_record_bytes=self._settings.max_metadata_bytes,
            required_metrics=required_metrics(strategy) if phase == "train" else frozenset(),
            needs_change=needs_change(strategy),
            reads_all_metrics=is_overridden(strategy, f"aggregate_{phase}"),
            form=self._settings.form if phase == "train" else Form.MODEL,
            arrayrecord_key=setting_of(strategy, "arrayrecord_key", "arrays"),
            max_array_bytes=rules.fold_buffer,
        )


def with_metadata(updates: Sequence[ClientUpdate[M | None]]) -> list[ClientUpdate[M]]:
    """Return the updates whose metadata was accepted."""
    return [cast("ClientUpdate[M]", one) for one in updates if one.has_metadata]
