"""The mixin that makes any Flower strategy read what its clients say, and a run one can trust.

Put :class:`Waggle` before a strategy class of Flower's::

    class CustomFedAdagrad(Waggle[TrainProcessMetadata], FedAdagrad): ...

It replaces Flower's round loop by its own, with the same signature, and calls Flower's verbs
(``configure_train``, ``aggregate_train``, ``configure_evaluate``, ``aggregate_evaluate``), so
the step is Flower's own, and a user's overrides count.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from typing import Any, Generic, Literal, TypeVar, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedwaggle.errors import ConfigError, NodesError, RunError
from fedwaggle.grids import StatefulGrid
from fedwaggle.identity import client_order
from fedwaggle.metadata import DEFAULT_MAX_BYTES, PICKLE_WARNING, Codec, schema_of
from fedwaggle.runs import Run
from fedwaggle.runs.checkpoints import Snapshot, read_latest_snapshot
from fedwaggle.runs.events import read_events
from fedwaggle.runs.opening import nodes_of
from fedwaggle.runs.writer import EVENTS
from fedwaggle.schedules import Schedule
from fedwaggle.seeds import derive_seed
from fedwaggle.strategy.averaging.arrays import Template
from fedwaggle.strategy.bounds.outliers import Bounds, OutlierRule
from fedwaggle.strategy.codes import Code, Refused
from fedwaggle.strategy.engines import SIMULATED, SIMULATION, engine_name
from fedwaggle.strategy.exchange import Arrival, Patience, exchange
from fedwaggle.strategy.journal import Journal
from fedwaggle.strategy.policies import Policy
from fedwaggle.strategy.repeatability import known_causes
from fedwaggle.strategy.replies.admission import (
    AdmittedEvaluation,
    Limits,
    admit,
    admit_evaluation,
)
from fedwaggle.strategy.replies.alike import failed_alike
from fedwaggle.strategy.replies.forms import Form, form_of, is_overridden
from fedwaggle.strategy.replies.initial import check_initial
from fedwaggle.strategy.replies.messages import bytes_of, config_value, with_config
from fedwaggle.strategy.replies.shelf import MetadataShelf
from fedwaggle.strategy.replies.trees import number_by_name
from fedwaggle.strategy.roster import Roster, RosterGrid, seeded_sampling
from fedwaggle.strategy.rounds import Evaluation, RoundSummary, Training
from fedwaggle.strategy.rules import RoundRules
from fedwaggle.strategy.settings import setting_of
from fedwaggle.strategy.state import RunState, from_snapshot, restore_strategy, to_snapshot
from fedwaggle.strategy.step.aggregation import is_robust, needs_change, required_metrics
from fedwaggle.strategy.step.collecting import Collector, collector_for
from fedwaggle.strategy.step.evaluations import aggregate_evaluations, typical_value
from fedwaggle.strategy.step.intake import Intake
from fedwaggle.strategy.step.metrics import as_metrics, warn_of_dropped
from fedwaggle.strategy.step.stepping import take_step
from fedwaggle.strategy.step.trainable import check_trainable
from fedwaggle.strategy.updates import ClientUpdate, Contract, Quarantined

__all__ = ["Waggle"]

logger = logging.getLogger("flwr.fedwaggle.strategy")  # below Flower's, so that its log shows it

M = TypeVar("M")
EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]
Phase = Literal["train", "evaluate"]


@dataclass(frozen=True)
class _Plan:
    """What ``start`` was asked for."""

    num_rounds: int
    timeout: float
    train_config: ConfigRecord
    evaluate_config: ConfigRecord
    evaluate: EvaluateFn


class Waggle(Strategy, Generic[M]):
    """A mixin that goes before any Flower strategy class.

    Parameters
    ----------
    metadata : type[M], optional
        The dataclass that clients send under ``content["metadata"]``; None reads no metadata.
    learning_rate : Schedule, optional
        The clients' learning rate as a function of the round. It is sent as ``config["lr"]``.
    run : Run, optional
        Where the run is recorded, and resumed from. Without one nothing is written.
    seed : int (default: 0)
        Decides who is sampled, and the seed that each client is sent as ``config["seed"]``.
    trainable : Collection[str], optional
        Names of the arrays that a server optimizer may step, such as ``trainable_names(model)``;
        the others (buffers, such as BatchNorm's running means) are averaged. None: all but
        BatchNorm's buffers.
    fixed_model : bool, optional
        Whether each reply to training must hold exactly the model's arrays. None: yes, but for
        FedXgbBagging and FedXgbCyclic, whose model grows. Set it to False for a strategy with an
        ``aggregate_train`` of its own that reads other arrays than the model's, or none: it gets
        each reply as it came, if its arrays are finite numbers of at most ``fold-buffer`` bytes.
        All replies of a round then wait in memory.
    rules : RoundRules, optional
        How long a round waits, what it admits, when the run gives up.
    policies : Sequence[Policy] (default: none)
        What may end the run or let clients rest, by what the clients say.
    best_metric : str (default: "accuracy")
        The metric of the server's evaluation, or else of the clients', that picks the best model.
    best_mode : {"max", "min"} (default: "max")
        Whether more or less of it is better.
    codec : {"json", "pickle"} (default: "json")
        How clients encode metadata.
    trust_pickle : bool (default: False)
        Needed for ``codec="pickle"``, with which every client can run code on this server.
    max_metadata_bytes : int (default: 64 KiB)
        Larger metadata is refused before it is decoded, and so is a reply whose other
        ConfigRecords are larger together.
    **strategy : Any
        What the Flower strategy takes.

    Raises
    ------
    ConfigError
        If ``codec="pickle"`` comes without ``trust_pickle=True``, ``metadata`` cannot be a
        contract, or ``fixed_model`` does not fit the strategy.

    Notes
    -----
    Some arrays have no mean, and stay as they are in the global model: infinities that the model
    holds and that clients send back at their place (attention masks), NaN in what is not
    ``trainable``, and torch's ``_extra_state``, which is not read from replies at all.
    """

    def __init__(
        self,
        *,
        metadata: type[M] | None = None,
        learning_rate: Schedule | None = None,
        run: Run | None = None,
        seed: int = 0,
        trainable: Collection[str] | None = None,
        fixed_model: bool | None = None,
        rules: RoundRules | None = None,
        policies: Sequence[Policy[M]] = (),
        best_metric: str = "accuracy",
        best_mode: Literal["max", "min"] = "max",
        codec: Codec = "json",
        trust_pickle: bool = False,
        max_metadata_bytes: int = DEFAULT_MAX_BYTES,
        **strategy: Any,  # noqa: ANN401  # whatever the strategy behind this mixin takes
    ) -> None:
        super().__init__(**strategy)
        flowers = frozenset(vars(self))
        if codec == "pickle" and not trust_pickle:
            raise ConfigError(
                [
                    "trust-pickle: metadata-codec = pickle lets every client run code on the "
                    "server; set trust-pickle = true (trust_pickle=True), or use json"
                ]
            )
        if metadata is not None:
            schema_of(metadata)  # a class that cannot be a contract is an error before any round
        self.contract = (
            Contract(metadata, codec, trust_pickle, max_metadata_bytes) if metadata else None
        )
        self.max_metadata_bytes = max_metadata_bytes
        self.learning_rate = learning_rate
        self.run = run
        self.seed = seed
        self.trainable = None if trainable is None else frozenset(trainable)
        self.fixed_model = fixed_model
        form_of(self, fixed_model=fixed_model)  # it refuses what does not fit
        self.rules = rules or RoundRules()
        self.policies = policies
        self.journal = Journal(run, best_metric, best_mode)
        # Settings are what this run is given: a resume point neither holds nor replaces them.
        self._settings = frozenset(vars(self)) - flowers

    # -- What a subclass may say -----------------------------------------------------------

    def on_train_metadata(
        self, server_round: int, updates: Sequence[ClientUpdate[M]]
    ) -> Mapping[str, float] | None:
        """Read what the clients of a round said, before their weights are aggregated.

        Parameters
        ----------
        server_round : int
            The round.
        updates : Sequence[ClientUpdate[M]]
            The updates whose metadata was accepted, by client.

        Returns
        -------
        Mapping[str, float] | None
            Numbers to record with the round, beside the averaged training metrics.
        """

    def on_round_end(self, summary: RoundSummary[M]) -> None:
        """Do something at the end of a round, round 0 (the initial model) included."""

    # -- Flower's verbs --------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Configure a round of training, with this round's learning rate as ``config["lr"]``.

        Flower's strategies write into the config that they are given, so they get a fresh one.
        """
        fresh = ConfigRecord(dict(config))
        if self.learning_rate is not None:
            fresh["lr"] = self.learning_rate(server_round)
        return super().configure_train(server_round, arrays, fresh, grid)  # type: ignore[safe-super]

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Configure a round of evaluation, with a fresh config."""
        fresh = ConfigRecord(dict(config))
        return super().configure_evaluate(server_round, arrays, fresh, grid)  # type: ignore[safe-super]

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """Run the rounds. Parameters and result are those of Flower's ``Strategy.start``.

        ``timeout`` bounds each phase of a round (s). If the run's folder holds a resume point,
        the rounds go on behind it, and ``initial_arrays`` are not used. A round with too few
        usable updates keeps the model, so the result is never empty.

        Raises
        ------
        ConfigError
            If ``trainable`` names an array that ``initial_arrays`` lacks, or if no round could
            succeed with the initial arrays; no client is sent a message then.
        NodesError
            If there are not enough nodes in time, or too many rounds in a row were skipped.
        RunError
            If a strategy has been started in the same run before: a run holds one start's rounds.
        """
        check_trainable(self, initial_arrays, self.trainable)
        if self.run is not None:
            self.run.claim()
        plan = _Plan(
            num_rounds,
            timeout,
            train_config or ConfigRecord(),
            evaluate_config or ConfigRecord(),
            evaluate_fn or _no_evaluation,
        )
        check_initial(
            initial_arrays,
            form=self._form,
            trainable=self.trainable,
            is_saved=self.run is not None,
        )
        roster = Roster(grid, self.rules.node_timeout)
        if engine_name(grid) == SIMULATION:
            roster.gather(self.rules.node_timeout)
        state = self._resume(roster, initial_arrays, plan) or self._begin(
            roster, initial_arrays, plan
        )
        for cause, reason in known_causes(self, self.policies).items():
            self.journal.not_repeatable(state.server_round, cause, reason)
        began_after = state.server_round
        while state.server_round < num_rounds and not state.stopped:
            server_round, clock = state.server_round + 1, _Clock()
            with clock.phase("train"):
                training = self._train(server_round, state, roster, plan)
            state = self._after_training(server_round, state, training)
            with clock.phase("evaluate"):
                evaluation = self._evaluate(server_round, state, roster, plan)
            state = self._decide(state, training)
            state = self._finish_round(state, training, evaluation, roster, plan, clock)
            self._give_up_if_stuck(state, training, began_after)
        if 0 < state.server_round == state.skipped:
            raise NodesError(f"no client has trained the model: {self._why_skipped(state)}")
        last = state.histories.get("evaluate_metrics_serverapp", {}).get(state.server_round, {})
        self.journal.run_finished(state, last)
        return state.result()

    # -- The steps of a run ------------------------------------------------------------------

    def _begin(self, roster: Roster, initial_arrays: ArrayRecord, plan: _Plan) -> RunState:
        """Record the start, and look at the initial model: round 0."""
        if self.contract is not None and self.contract.codec == "pickle":
            logger.warning(PICKLE_WARNING)
        state = RunState(0, initial_arrays)
        self.journal.run_started(
            strategy=type(self).__name__,
            engine=engine_name(roster.grid),
            num_rounds=plan.num_rounds,
            nodes=len(list(roster.grid.get_node_ids())) or None,
            state=state,
        )
        return self._finish_round(state, Training(), Evaluation(), roster, plan, _Clock())

    def _resume(self, roster: Roster, initial_arrays: ArrayRecord, plan: _Plan) -> RunState | None:
        """Return the state that the run's folder holds; None if it is to begin at round 0."""
        if self.run is None or self.run.resumed is None:
            return None
        self._refuse_other_nodes(self.run, roster)
        snapshot = read_latest_snapshot(self.run.path)
        if snapshot is not None and self._form.is_fixed:
            _refuse_another_model(self.run, snapshot, Template.of(initial_arrays))
            _refuse_another_seed(self.run, snapshot, self.seed)
        self.journal.run_resumed(
            server_round=snapshot.server_round if snapshot else -1,
            engine=engine_name(roster.grid),
            num_rounds=plan.num_rounds,
            nodes=len(list(roster.grid.get_node_ids())) or None,
            changes=self.run.resumed,
        )
        if snapshot is None:
            return None
        record = read_events(self.run.path / EVENTS)
        state, client_states = from_snapshot(snapshot, record)
        # A fork may have changed what the constructor was given, such as the step size.
        given = _constructor_names(type(self)) if self.run.is_fork else frozenset[str]()
        state = replace(state, stopped=state.stopped and not self.run.is_fork)
        restore_strategy(self, snapshot, settings=self._settings, given=given)
        if isinstance(roster.grid, StatefulGrid):
            roster.grid.restore_client_states(client_states)
        logger.info("resumed after round %d of %s", state.server_round, self.run.path)
        if state.server_round >= plan.num_rounds:
            logger.warning(
                "nothing to do: the run has %d rounds, and %d are asked for",
                state.server_round,
                plan.num_rounds,
            )
        return state

    def _refuse_other_nodes(self, run: Run, roster: Roster) -> None:
        """Refuse to go on with other nodes where each has its part of the data by its number."""
        if run.is_fork or engine_name(roster.grid) not in SIMULATED:
            return
        before, now = nodes_of(run.path), len(list(roster.grid.get_node_ids()))
        if before is not None and before != now:
            raise RunError(
                f"nodes: the run has {before}, and now there are {now}, so that every client would "
                f"have other data; go on with {before} (--nodes {before}), or --fork the run"
            )

    def _train(
        self, server_round: int, state: RunState, roster: Roster, plan: _Plan
    ) -> Training[M]:
        """Train a cohort: draw, send, admit each reply as it arrives, aggregate."""
        template = Template.of(state.arrays)  # before anybody is sent a model that cannot be used
        cohort = self._draw("train", server_round, state, roster, plan)
        names = _names_of(cohort, roster)
        rate = config_value(cohort, "lr")
        usable: set[str] = set()
        replies = self._ask(roster, cohort, plan, usable)
        rule = self._outlier_rule
        folder = self.run.path if self.run else None  # /tmp may be memory itself
        collector = collector_for(  # it takes its memory now, while the clients train
            self,
            names,
            state.arrays,
            template,
            trainable=self.trainable,
            is_measured=rule.share > 0 or needs_change(self),
            fold_buffer=self.rules.fold_buffer,
            spill_dir=folder,
            form=self._form,
        )
        judge = partial(
            admit,
            server_round=server_round,
            template=collector.template,
            limits=self._limits("train"),
            contract=self.contract,
            kept=collector.kept,
            ruler=collector.ruler,
        )
        intake: Intake[M] = Intake(
            server_round,
            judge=judge,
            bounds=Bounds(rule, len(names)),
            collector=collector,
            journal=self.journal,
            shelf=MetadataShelf(self.contract, self.rules.metadata_budget, folder),
            usable=usable,
        )
        with closing(collector):
            for client, arrival in replies:
                intake.take(client, arrival)
            intake.finish()
            dropped = {update.client: update.dropped_metrics for update in intake.updates}
            warn_of_dropped("train", server_round, dropped)
            fewest = self._fewest_updates(len(names))
            arrays, metrics = self._aggregate(server_round, intake, collector, fewest)
        updates, quarantined = intake.updates, intake.quarantined
        answered = {u.client for u in updates} | {q.client for q in quarantined}
        return Training(
            learning_rate=rate,
            updates=updates,
            quarantined=quarantined,
            missing=[name for name in names if name not in answered],
            arrays=arrays,
            metrics=metrics,
            skipped=arrays is None,
        )

    def _draw(
        self, phase: Phase, server_round: int, state: RunState, roster: Roster, plan: _Plan
    ) -> list[Message]:
        """Let the Flower strategy draw a cohort, under the round's seed; one message a client."""
        if phase == "train":
            roster.ask_again()
        drawn_from = RosterGrid(
            roster,
            resting=state.attendance.resting(server_round),
            enough=max(self._nodes("min_available_nodes"), self._nodes(f"min_{phase}_nodes")),
            node_timeout=self.rules.node_timeout,
        )
        configure = self.configure_train if phase == "train" else self.configure_evaluate
        config = plan.train_config if phase == "train" else plan.evaluate_config
        number_by_name(self, drawn_from.get_node_ids())
        with seeded_sampling(derive_seed(self.seed, "sample", phase, server_round)):
            cohort = list(configure(server_round, state.arrays, config, drawn_from))
        if reason := roster.why_not_repeatable():
            self.journal.not_repeatable(server_round, "names", reason)
        key = setting_of(self, "configrecord_key", "config")
        for message in cohort:
            client = roster.name(message.metadata.dst_node_id)
            with_config(message, key, seed=derive_seed(self.seed, phase, server_round, client))
        if phase == "train":
            self.journal.round_started(
                server_round,
                learning_rate=config_value(cohort, "lr"),
                clients=[roster.name(n) for n in _node_ids(cohort)],
                available=drawn_from.available,
                cooling_down=drawn_from.left_out,
                bytes_down=sum(bytes_of(message.content) for message in cohort),
            )
        return cohort

    def _ask(
        self, roster: Roster, cohort: Sequence[Message], plan: _Plan, admitted: Sized
    ) -> Iterator[tuple[str, Arrival]]:
        """Send each message, and return each reply with its client's name as it arrives.

        Messages leave in the order of summation, so that few replies come before their turn.
        What the caller has ``admitted`` is what counts as enough: a bad reply ends no waiting.
        """
        enough = min(self.rules.min_replies, len(cohort))
        patience = Patience(plan.timeout, lambda: 0 < enough <= len(admitted), self.rules.grace)
        in_order = sorted(cohort, key=lambda m: client_order(roster.name(m.metadata.dst_node_id)))
        arrivals = exchange(roster.grid, in_order, patience)
        return ((roster.name(arrival.node_id), arrival) for arrival in arrivals)

    def _aggregate(
        self,
        server_round: int,
        intake: Intake[M],
        collector: Collector,
        fewest: int,
    ) -> tuple[ArrayRecord | None, dict[str, Any]]:
        """Let the subclass read the metadata, and Flower's strategy take its step."""
        if len(intake.updates) < fewest:
            return None, {}
        logger.info("aggregate_train: %d updates admitted", len(intake.updates))
        said = self.on_train_metadata(server_round, _with_metadata(intake.updates))
        metrics = as_metrics("on_train_metadata", said)
        step, dropped = take_step(self, collector, server_round, fewest)
        intake.drop(dropped, _STEP_NOT_FINITE)
        arrays, averaged = step
        return arrays, {**as_metrics("aggregate_train", averaged), **metrics}

    def _after_training(
        self, server_round: int, state: RunState, training: Training[M]
    ) -> RunState:
        """Return the state with the round's model, and with who did not answer."""
        crashed = [bad.client for bad in training.quarantined if bad.code in _ABSENT]
        attendance = state.attendance.after(
            server_round,
            answered=[update.client for update in training.updates],
            silent=[*training.missing, *crashed],
            rest_after=self.rules.cooldown_after,
            rest_rounds=self.rules.cooldown_rounds,
        )
        if training.skipped:
            asked = len(training.updates) + len(training.quarantined) + len(training.missing)
            logger.warning(
                "round %d skipped: no step from %d usable updates (at least %d are needed); "
                "the model stays",
                server_round,
                len(training.updates),
                self._fewest_updates(asked),
            )
        return replace(
            state,
            server_round=server_round,
            arrays=training.arrays or state.arrays,
            attendance=attendance,
            skipped=state.skipped + 1 if training.skipped else 0,
        )

    def _evaluate(
        self, server_round: int, state: RunState, roster: Roster, plan: _Plan
    ) -> Evaluation:
        """Let a cohort evaluate the model: draw, send, admit, aggregate."""
        cohort = self._draw("evaluate", server_round, state, roster, plan)
        names = _names_of(cohort, roster)
        admitted: list[AdmittedEvaluation] = []
        quarantined: list[Quarantined] = []
        for client, arrival in self._ask(roster, cohort, plan, admitted):
            reply = admit_evaluation(arrival, client=client, limits=self._limits("evaluate"))
            if isinstance(reply, Quarantined):
                self.journal.quarantined(server_round, reply, "evaluate")
                quarantined.append(reply)
            else:
                admitted.append(reply)
        dropped = {reply.client: reply.dropped_metrics for reply in admitted}
        warn_of_dropped("evaluate", server_round, dropped)
        answered = {one.client for one in admitted} | {bad.client for bad in quarantined}
        rule = self.rules.outliers
        metric, mode = self.journal.best_metric, self.journal.best_mode
        typical = typical_value(admitted, metric, mode) if rule.share else None
        return Evaluation(
            quarantined=quarantined,
            missing=[name for name in names if name not in answered],
            metrics=aggregate_evaluations(self, server_round, admitted, rule),
            typical={} if typical is None else {metric: typical},
        )

    def _decide(self, state: RunState, training: Training[M]) -> RunState:
        """Let the policies decide by what the clients said, and carry their decisions out."""
        cohort, read = training.cohort, _with_metadata(training.updates)
        for policy in self.policies:
            memory = state.policies.get(policy.name, {})
            decisions, memory = policy.decide(state.server_round, cohort, read, memory)
            state = replace(state, policies={**state.policies, policy.name: dict(memory)})
            for decision in decisions:
                self.journal.decision(state.server_round, policy.name, decision)
                until = state.server_round + decision.rest_rounds
                rested = decision.clients if decision.rest_rounds else ()
                state = replace(
                    state,
                    attendance=state.attendance.resting_until(rested, until),
                    stopped=state.stopped or decision.stop,
                )
        return state

    def _finish_round(
        self,
        state: RunState,
        training: Training[M],
        evaluation: Evaluation,
        roster: Roster,
        plan: _Plan,
        clock: _Clock,
    ) -> RunState:
        """Test the model, keep it if it is the best, record the round, write its resume point."""
        with clock.phase("test"):
            metrics = dict(plan.evaluate(state.server_round, state.arrays) or {})
        histories = state.with_metrics(
            state.server_round,
            train_metrics_clientapp=training.metrics,
            evaluate_metrics_clientapp=evaluation.metrics,
            evaluate_metrics_serverapp=metrics,
        )
        with clock.phase("checkpoint"):
            reported = {**evaluation.metrics, **evaluation.typical, **metrics}
            best = self.journal.offer_best(state, reported)
        summary = RoundSummary(
            server_round=state.server_round,
            num_rounds=plan.num_rounds,
            training=training,
            evaluation=evaluation,
            metrics=metrics,
            is_best=best is not state.best,
            seconds=clock.seconds,
        )
        self.journal.round_finished(summary, clock.phases)
        state = replace(state, best=best, histories=histories)
        if self.run is not None:
            # The resume point commits the round: it comes after everything that it stands for.
            grid = roster.grid
            client_states = grid.client_states() if isinstance(grid, StatefulGrid) else {}
            self.journal.save_snapshot(
                to_snapshot(state, self, client_states, self._settings, self.seed)
            )
        self.on_round_end(summary)
        return state

    def _give_up_if_stuck(self, state: RunState, training: Training[M], began_after: int) -> None:
        """Raise if no other round would go better, or too many in a row were skipped."""
        limit = self.rules.max_skipped_rounds
        alike = failed_alike(training.quarantined, training.sampled)
        # What worked before may work again, and one client alone may be the only one: but what
        # no client has ever done is a mistake of the app.
        never_worked = state.skipped >= state.server_round - began_after
        if limit and alike and never_worked and training.sampled > 1:
            raise NodesError(
                f"every client of round {state.server_round} failed alike; correct the app, and "
                f"run it again{self._advice}: {alike}"
            )
        if limit and state.skipped >= limit:
            last = f"; in the last one: {alike}" if alike else ""
            raise NodesError(f"max-skipped-rounds: {self._why_skipped(state)}{last}")

    def _why_skipped(self, state: RunState) -> str:
        return (
            f"{state.skipped} rounds in a row had fewer than {self._fewest_updates()} usable "
            "updates, or a step that was taken back; see the log, and the quarantined and missing "
            f"clients in the record, then go on from here with resume = latest{self._advice}"
        )

    @property
    def _advice(self) -> str:
        """What else may help a run in which no reply is usable."""
        if self._form is not Form.MODEL_AND_MORE:
            return ""
        return "; if its step reads other arrays than the model's, pass fixed_model=False"

    @property
    def _outlier_rule(self) -> OutlierRule:
        """The bounds on updates; none where the strategy bounds them, or has no fixed model."""
        is_bounded = self._form.is_fixed and not is_robust(self)
        return self.rules.outliers if is_bounded else OutlierRule(share=0)

    def _limits(self, phase: Phase) -> Limits:
        return Limits(
            max_num_examples=self.rules.max_num_examples,
            weighted_by_key=setting_of(self, "weighted_by_key", "num-examples"),
            on_bad_metadata=self.rules.on_bad_metadata,
            max_record_bytes=self.max_metadata_bytes,
            required_metrics=required_metrics(self) if phase == "train" else frozenset(),
            needs_change=needs_change(self),
            reads_all_metrics=is_overridden(self, f"aggregate_{phase}"),
            form=self._form if phase == "train" else Form.MODEL,
            arrayrecord_key=setting_of(self, "arrayrecord_key", "arrays"),
            max_array_bytes=self.rules.fold_buffer,
        )

    @property
    def _form(self) -> Form:
        return form_of(self, fixed_model=self.fixed_model)

    def _fewest_updates(self, asked: int | None = None) -> int:
        """Return how many updates a step needs; a strategy may ask fewer clients than it awaits."""
        fewest = max(1, self._nodes("min_train_nodes"))
        return fewest if asked is None else min(fewest, max(1, asked))

    def _nodes(self, attribute: str) -> int:
        return setting_of(self, attribute, 0)


class _Clock:
    """Seconds of the phases of a round."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self._began = time.monotonic()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block."""
        began = time.monotonic()
        yield
        self.phases[name] = time.monotonic() - began

    @property
    def seconds(self) -> float:
        """Seconds since the round began."""
        return time.monotonic() - self._began


_STEP_NOT_FINITE = Refused(
    Code.STEP_NOT_FINITE,
    "the step with this reply left NaN or an infinity, and the step without it did not; its "
    "metrics or its change are too large",
)
_ABSENT = {Code.CLIENT_CRASHED, Code.CLIENT_UNAVAILABLE}


def _no_evaluation(server_round: int, arrays: ArrayRecord) -> None:
    """Stand in for an ``evaluate_fn`` that was not given."""


def _refuse_another_model(run: Run, snapshot: Snapshot, asked: Template) -> None:
    """Refuse to put what a resume point holds into a model that it does not fit."""
    held = {key: (array.shape, array.dtype) for key, array in snapshot.model.items()}
    wanted = {key: (spec.shape, spec.dtype) for key, spec in asked.specs.items()}
    differing = sorted(key for key in {*held, *wanted} if held.get(key) != wanted.get(key))
    if differing:
        key = differing[0]
        raise RunError(
            f"{run.path.name}: its resume point is of another model: {len(differing)} arrays "
            f"differ, such as {key!r}: {_said(held.get(key))} there, {_said(wanted.get(key))} now; "
            "bring that model back, or begin a new run"
        )


def _refuse_another_seed(run: Run, snapshot: Snapshot, seed: int) -> None:
    """Refuse to draw the other rounds of a run by another seed; a fork may."""
    before = snapshot.values.get("seed", seed)
    if before != seed and not run.is_fork:
        raise RunError(
            f"seed: {run.path.name} was begun with seed {before}, and the strategy now has {seed}; "
            f"make it with seed={before}, or fork the run"
        )


def _said(kind: tuple[tuple[int, ...], np.dtype[Any]] | None) -> str:
    return "nothing" if kind is None else f"{kind[1]}{list(kind[0])}"


def _with_metadata(updates: Sequence[ClientUpdate[M | None]]) -> list[ClientUpdate[M]]:
    return [cast("ClientUpdate[M]", one) for one in updates if one.has_metadata]


def _node_ids(messages: Sequence[Message]) -> list[int]:
    return [message.metadata.dst_node_id for message in messages]


def _names_of(cohort: Sequence[Message], roster: Roster) -> list[str]:
    """Return the names of the clients that a cohort's messages go to, in their order."""
    return sorted((roster.name(node_id) for node_id in _node_ids(cohort)), key=client_order)


def _constructor_names(cls: type) -> frozenset[str]:
    """Return the names of everything that the classes behind ``cls`` take when they are made."""
    return frozenset(
        name
        for base in cls.__mro__
        if "__init__" in vars(base)
        for name in signature(vars(base)["__init__"]).parameters
    )
