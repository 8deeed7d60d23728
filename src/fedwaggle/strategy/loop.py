"""The rounds of a run: train, evaluate, decide, record; and what may end them.

The loop calls Flower's verbs on the strategy, so the step is Flower's own. What a round came to
is a :class:`RunState`, from which the next round, or a resumed run, begins.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Generic, TypeVar

from flwr.app import ArrayRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from fedwaggle.errors import NodesError
from fedwaggle.grids import SIMULATION, StatefulGrid, engine_name, is_simulated
from fedwaggle.metadata import PICKLE_WARNING
from fedwaggle.runs.checkpoints import read_latest_snapshot
from fedwaggle.runs.paths import EVENTS
from fedwaggle.runs.reading import read_events
from fedwaggle.strategy.averaging.arrays import Template
from fedwaggle.strategy.codes import Code
from fedwaggle.strategy.cohort.roster import Roster
from fedwaggle.strategy.journal import Journal
from fedwaggle.strategy.plan import Hooks, Plan, Settings
from fedwaggle.strategy.repeatability import known_causes
from fedwaggle.strategy.replies.alike import failed_alike
from fedwaggle.strategy.replies.forms import Form
from fedwaggle.strategy.replies.size_limit import limit_replies, most_parts
from fedwaggle.strategy.resuming import (
    constructor_names,
    refuse_another_model,
    refuse_another_seed,
    refuse_other_nodes,
)
from fedwaggle.strategy.state import RunState, from_snapshot, restore_strategy, to_snapshot
from fedwaggle.strategy.step.phases import Phases, with_metadata
from fedwaggle.strategy.updates import Evaluation, RoundSummary, Training

__all__ = ["RoundLoop"]

logger = logging.getLogger("flwr.fedwaggle.strategy")  # below Flower's, so that its log shows it

M = TypeVar("M")

_ABSENT = {Code.CLIENT_CRASHED, Code.CLIENT_UNAVAILABLE}


class RoundLoop(Generic[M]):
    """The rounds of one start of a strategy.

    Parameters
    ----------
    strategy : Hooks[M]
        The Flower strategy, with its hooks.
    settings : Settings[M]
        What the mixin knows besides.
    journal : Journal
        Records what happens.
    grid : Grid
        What carries the messages.
    plan : Plan
        What was asked for.
    """

    def __init__(
        self,
        strategy: Hooks[M],
        settings: Settings[M],
        journal: Journal,
        grid: Grid,
        plan: Plan,
    ) -> None:
        self._strategy = strategy
        self._settings = settings
        self._rules = settings.rules
        self._journal = journal
        self._plan = plan
        self._roster = Roster(grid, settings.rules.node_timeout)
        self._phases = Phases(strategy, settings, journal, self._roster, plan)

    def run(self, initial_arrays: ArrayRecord) -> Result:
        """Run the rounds; parameters, result and errors are those of ``Waggle.start``."""
        if self._settings.form.is_fixed:
            limit_replies(self._roster.grid, most_parts(initial_arrays, self._settings.form))
        if engine_name(self._roster.grid) == SIMULATION:
            self._roster.gather(self._rules.node_timeout)
        state = self._resume(initial_arrays) or self._begin(initial_arrays)
        for cause, reason in known_causes(self._strategy, self._settings.policies).items():
            self._journal.not_repeatable(state.server_round, cause, reason)
        began_after = state.server_round
        while state.server_round < self._plan.num_rounds and not state.stopped:
            clock = _Clock()
            with clock.phase("train"):
                training = self._phases.train(state)
            state = self._after_training(state, training)
            with clock.phase("evaluate"):
                evaluation = self._phases.evaluate(state)
            state = self._decide(state, training)
            state = self._finish_round(state, training, evaluation, clock)
            self._give_up_if_stuck(state, training, began_after)
        if 0 < state.server_round == state.skipped:
            raise NodesError(f"no client has trained the model: {self._why_skipped(state)}")
        last = state.histories.get("evaluate_metrics_serverapp", {}).get(state.server_round, {})
        self._journal.run_finished(state, last)
        return state.result()

    # -- The start

    def _begin(self, initial_arrays: ArrayRecord) -> RunState:
        """Record the start, and look at the initial model: round 0."""
        contract = self._settings.contract
        if contract is not None and contract.codec == "pickle":
            logger.warning(PICKLE_WARNING)
        state = RunState(0, initial_arrays)
        self._journal.run_started(
            strategy=type(self._strategy).__name__,
            engine=engine_name(self._roster.grid),
            num_rounds=self._plan.num_rounds,
            nodes=self._num_nodes(),
            state=state,
        )
        if is_simulated(self._roster.grid):
            self._journal.labels_counted(0, self._count_labels())
        return self._finish_round(state, Training(), Evaluation(), _Clock())

    def _count_labels(self) -> dict[str, dict[str, int]]:
        """Count what simulated clients train on."""
        run, nodes = self._settings.run, self._num_nodes()
        if run is None or run.count_labels is None or nodes is None:
            return {}
        return {str(i): counts for i, counts in enumerate(run.count_labels(nodes))}

    def _resume(self, initial_arrays: ArrayRecord) -> RunState | None:
        """Return the state that the run's folder holds; None if it is to begin at round 0."""
        run = self._settings.run
        if run is None or run.resumed is None:
            return None
        grid = self._roster.grid
        refuse_other_nodes(run, grid)
        snapshot = read_latest_snapshot(run.path)
        if snapshot is not None and self._settings.form.is_fixed:
            refuse_another_model(run, snapshot, Template.of(initial_arrays))
            refuse_another_seed(run, snapshot, self._settings.seed)
        self._journal.run_resumed(
            server_round=snapshot.server_round if snapshot else -1,
            engine=engine_name(grid),
            num_rounds=self._plan.num_rounds,
            nodes=self._num_nodes(),
            changes=run.resumed,
        )
        if snapshot is None:
            return None
        state, client_states = from_snapshot(snapshot, read_events(run.path / EVENTS))
        # A fork may have changed what the constructor was given, such as the step size.
        given = constructor_names(type(self._strategy)) if run.is_fork else frozenset[str]()
        state = replace(state, stopped=state.stopped and not run.is_fork)
        restore_strategy(self._strategy, snapshot, settings=self._settings.attributes, given=given)
        if isinstance(grid, StatefulGrid):
            grid.restore_client_states(client_states)
        logger.info("resumed after round %d of %s", state.server_round, run.path)
        if state.server_round >= self._plan.num_rounds:
            logger.warning(
                "nothing to do: the run has %d rounds, and %d are asked for",
                state.server_round,
                self._plan.num_rounds,
            )
        return state

    def _num_nodes(self) -> int | None:
        return len(list(self._roster.grid.get_node_ids())) or None

    def _after_training(self, state: RunState, training: Training[M]) -> RunState:
        """Return the state with the round's model, and with who did not answer."""
        server_round = state.server_round + 1
        crashed = [bad.client for bad in training.quarantined if bad.code in _ABSENT]
        attendance = state.attendance.after(
            server_round,
            answered=[update.client for update in training.updates],
            silent=[*training.missing, *crashed],
            rest_after=self._rules.cooldown_after,
            rest_rounds=self._rules.cooldown_rounds,
        )
        if training.skipped:
            logger.warning(
                "round %d skipped: no step from %d usable updates (at least %d are needed); "
                "the model stays",
                server_round,
                len(training.updates),
                self._phases.fewest_updates(training.sampled),
            )
        return replace(
            state,
            server_round=server_round,
            arrays=training.arrays or state.arrays,
            attendance=attendance,
            skipped=state.skipped + 1 if training.skipped else 0,
        )

    def _decide(self, state: RunState, training: Training[M]) -> RunState:
        """Let the policies decide by what the clients said, and carry their decisions out."""
        cohort, read = training.cohort, with_metadata(training.updates)
        for policy in self._settings.policies:
            memory = state.policies.get(policy.name, {})
            decisions, memory = policy.decide(state.server_round, cohort, read, memory)
            state = replace(state, policies={**state.policies, policy.name: dict(memory)})
            for decision in decisions:
                self._journal.decision(state.server_round, policy.name, decision)
                until = state.server_round + decision.rest_rounds
                rested = decision.clients if decision.rest_rounds else ()
                state = replace(
                    state,
                    attendance=state.attendance.resting_until(rested, until),
                    stopped=state.stopped or decision.stop,
                )
        return state

    def _finish_round(
        self, state: RunState, training: Training[M], evaluation: Evaluation, clock: _Clock
    ) -> RunState:
        """Test the model, keep it if it is the best, record the round, write its resume point."""
        with clock.phase("test"):
            metrics = dict(self._plan.evaluate(state.server_round, state.arrays) or {})
        histories = state.with_metrics(
            state.server_round,
            train_metrics_clientapp=training.metrics,
            evaluate_metrics_clientapp=evaluation.metrics,
            evaluate_metrics_serverapp=metrics,
        )
        with clock.phase("checkpoint"):
            best = self._journal.offer_best(state, _metrics_of_model(metrics, evaluation))
        summary = RoundSummary(
            server_round=state.server_round,
            num_rounds=self._plan.num_rounds,
            training=training,
            evaluation=evaluation,
            metrics=metrics,
            is_best=best is not state.best,
            seconds=clock.seconds,
        )
        self._journal.round_finished(summary, clock.phases)
        state = replace(state, best=best, histories=histories)
        if self._settings.run is not None:
            # The resume point commits the round: it comes after everything that it stands for.
            grid = self._roster.grid
            self._journal.save_snapshot(
                to_snapshot(
                    state,
                    self._strategy,
                    grid.client_states() if isinstance(grid, StatefulGrid) else {},
                    self._settings.attributes,
                    self._settings.seed,
                )
            )
        self._strategy.on_round_end(summary)
        return state

    # -- The end of a run that does not work

    def _give_up_if_stuck(self, state: RunState, training: Training[M], began_after: int) -> None:
        """Raise if no other round would go better, or too many in a row were skipped."""
        limit = self._rules.max_skipped_rounds
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
        fewest = self._phases.fewest_updates()
        return (
            f"{state.skipped} rounds in a row had fewer than {fewest} usable updates, or a step "
            "that was taken back; see the log, and the quarantined and missing "
            f"clients in the record, then go on from here with resume = latest{self._advice}"
        )

    @property
    def _advice(self) -> str:
        """What else may help a run in which no reply is usable."""
        if self._settings.form is not Form.MODEL_AND_MORE:
            return ""
        return "; if its step reads other arrays than the model's, pass fixed_model=False"


def _metrics_of_model(server: Mapping[str, Any], evaluation: Evaluation) -> dict[str, Any]:
    """Return what is known of a round's model: what the server measured counts before the rest."""
    found: dict[str, Any] = {}
    for metrics in (server, evaluation.typical, evaluation.metrics):
        for name, value in metrics.items():
            found.setdefault(name, value)
    return found


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
