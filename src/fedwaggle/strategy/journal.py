"""The server's side of the run record: what happens in the round loop, as events.

The loop calls one method at each turn. The journal writes the event, and keeps the models that
are to be kept. Without a run it writes nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal

from fedwaggle.numbers import value_text
from fedwaggle.runs import Run
from fedwaggle.runs.best_model import BEST, FINAL, BestRule, model_sha256, save_best, save_final
from fedwaggle.runs.checkpoints import Snapshot, write_snapshot
from fedwaggle.runs.events import (
    BestModel,
    CheckpointFailed,
    CheckpointSaved,
    ClientEvaluated,
    ClientQuarantined,
    ClientUpdated,
    DecisionTaken,
    Event,
    LabelsCounted,
    MetadataProblem,
    NotRepeatable,
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunResumed,
    RunStarted,
    SiteMeasures,
    SnapshotFailed,
)
from fedwaggle.runs.request import installed_versions
from fedwaggle.strategy.policies import Decision
from fedwaggle.strategy.repeatability import Cause, lost_replies
from fedwaggle.strategy.replies.alike import Repeats, in_words
from fedwaggle.strategy.state import RunState, to_ndarrays
from fedwaggle.strategy.updates import ClientUpdate, Quarantined, RoundSummary
from fedwaggle.text import printable

__all__ = ["Journal", "round_line"]

logger = logging.getLogger("flwr.fedwaggle.strategy")

_LONGEST_NAME = 40  # characters of a metric's name in the log


class Journal:
    """Writes the record of a run.

    Parameters
    ----------
    run : Run | None
        Where to; None writes nothing.
    best_rule : BestRule
        Which model is the best.
    """

    def __init__(self, run: Run | None, best_rule: BestRule) -> None:
        self._run = run
        self.best_rule = best_rule
        self._began = time.monotonic()
        self._causes: dict[str, str] = dict(run.request.not_repeatable) if run else {}
        self._repeats = Repeats()
        self._warned_of_metadata = False
        self._sites: dict[str, SiteMeasures] = {}

    def run_started(
        self, *, strategy: str, engine: str, num_rounds: int, nodes: int | None, state: RunState
    ) -> None:
        """Record the start."""
        request = self._run.request if self._run else None
        arrays = to_ndarrays(state.arrays)
        self._record(
            RunStarted(
                name=self._run.name if self._run else "",
                app=request.app if request else "",
                strategy=strategy,
                engine=engine,
                num_rounds=num_rounds,
                nodes=nodes,
                config=request.config if request else {},
                seed=request.seed if request else 0,
                versions=installed_versions(),
                sha256=model_sha256(arrays),
                num_parameters=sum(array.size for array in arrays.values()),
            )
        )

    def labels_counted(self, server_round: int, clients: Mapping[str, Mapping[str, int]]) -> None:
        """Record what clients train on, if that is known."""
        if clients:
            counts = {name: dict(each) for name, each in clients.items()}
            self._record(LabelsCounted(round=server_round, clients=counts))

    def run_resumed(
        self,
        *,
        server_round: int,
        engine: str,
        num_rounds: int,
        nodes: int | None,
        changes: Mapping[str, list[Any]],
    ) -> None:
        """Record that the run goes on after a round; -1 begins it anew."""
        self._record(
            RunResumed(
                round=server_round,
                num_rounds=num_rounds,
                engine=engine,
                nodes=nodes,
                changes=dict(changes),
            )
        )

    def not_repeatable(self, server_round: int, cause: Cause, reason: str) -> None:
        """Record, once for each cause, that another run may end with another model, and log it."""
        if cause in self._causes:
            return
        self._causes[cause] = reason
        logger.warning("not repeatable: %s", reason)
        self._record(NotRepeatable(round=server_round, cause=cause, reason=reason))
        if self._run is not None:
            self._run.explain_not_repeatable(self._causes)

    def round_started(
        self,
        server_round: int,
        *,
        learning_rate: float | None,
        clients: Sequence[str],
        available: int,
        cooling_down: Sequence[str],
        bytes_down: int,
    ) -> None:
        """Record the cohort of a round."""
        self._record(
            RoundStarted(
                round=server_round,
                learning_rate=learning_rate,
                sampled=len(clients),
                available=available,
                clients=list(clients),
                cooling_down=list(cooling_down),
                bytes_down=bytes_down,
            )
        )

    def update(self, update: ClientUpdate[Any]) -> None:
        """Record an update that was admitted."""
        problem = update.metadata_error
        self._note_site(update)
        self._record(
            ClientUpdated(
                round=update.server_round,
                client=update.client,
                node_id=str(update.node_id),
                num_examples=update.num_examples,
                metrics=dict(update.metrics),
                dropped_metrics=list(update.dropped_metrics),
                metadata=_as_dict(update.metadata),
                metadata_error=MetadataProblem(
                    code=problem.code, message=str(problem), paths=list(problem.paths)
                )
                if problem
                else None,
                seconds=update.seconds,
                bytes=update.bytes,
                norm=update.norm,
                scale=update.scale,
                weight=update.weight,
                site=update.site,
            )
        )

    def _note_site(self, update: ClientUpdate[Any]) -> None:
        """Log what a client's site does to its replies, whenever that is new."""
        if update.site is None or self._sites.get(update.client) == update.site:
            return
        self._sites[update.client] = update.site
        logger.info("site policy of client %s: %s", update.client, update.site.in_words)
        if update.site.noise_std:
            reason = (
                f"client {update.client} adds noise, which has no seed, so that it stays secret"
            )
            self.not_repeatable(update.server_round, "noise", reason)

    def evaluation(self, server_round: int, client: str, metrics: Mapping[str, Any]) -> None:
        """Record a client's evaluation that was admitted."""
        self._record(ClientEvaluated(round=server_round, client=client, metrics=dict(metrics)))

    def quarantined(
        self, server_round: int, bad: Quarantined, phase: Literal["train", "evaluate"]
    ) -> None:
        """Record a reply that was refused; of several alike, one is logged and all are counted."""
        level = logging.WARNING if self._repeats.is_first(bad) else logging.DEBUG
        logger.log(
            level, "%s: client %s: %s (%s)", phase, bad.client, in_words(bad.reason), bad.code
        )
        self._record(
            ClientQuarantined(
                round=server_round,
                client=bad.client,
                node_id=str(bad.node_id),
                code=bad.code,
                reason=bad.reason,
                seconds=bad.seconds,
                phase=phase,
            )
        )

    def decision(self, server_round: int, policy: str, decision: Decision) -> None:
        """Record a decision of a policy, and log it."""
        about = f" ({', '.join(decision.clients)})" if decision.clients else ""
        logger.info("%s: %s%s: %s", policy, decision.action, about, decision.reason)
        self._record(
            DecisionTaken(
                round=server_round,
                policy=policy,
                action=decision.action,
                reason=decision.reason,
                clients=list(decision.clients),
            )
        )

    def offer_best(self, state: RunState, metrics: Mapping[str, Any]) -> BestModel | None:
        """Keep the model if it is the best so far; return the best one on disk.

        A model that cannot be written is not the best: the one before stays, whole.
        """
        metric = self.best_rule.metric_of(metrics, state.best)
        value = metrics.get(metric)
        if value is None and state.server_round == 1:  # in round 0, clients have not evaluated yet
            logger.warning(
                "best-metric: expected a metric of the evaluation, got %r; there are %s, and "
                "without it no best model is kept",
                metric,
                ", ".join(sorted(metrics)) or "none",
            )
        if not self.best_rule.is_better(metric, value, state.best):
            return state.best
        arrays = to_ndarrays(state.arrays)
        found = BestModel(
            round=state.server_round,
            metric=metric,
            value=float(value),  # type: ignore[arg-type]  # is_better let only numbers pass
            sha256=model_sha256(arrays),
        )
        if self._run is None:
            return found
        try:
            size = save_best(self._run.path, arrays, found)
        except OSError as error:
            logger.warning("%s: not written (%s); the one before stays", BEST, error)
            self._run.not_written(BEST, error)
            self._record(
                CheckpointFailed(
                    round=found.round,
                    metric=found.metric,
                    value=found.value,
                    file=BEST,
                    error=_said(error),
                )
            )
            return state.best
        self._run.written(BEST)
        self._record(CheckpointSaved(**found.model_dump(), file=BEST, bytes=size))
        return found

    def round_finished(self, summary: RoundSummary[Any], phases: Mapping[str, float]) -> None:
        """Record the end of a round, and the seconds of its phases; log the round on one line."""
        for line in self._repeats.take():
            logger.warning("round %d: %s", summary.server_round, line)
        training = summary.training
        self._warn_of_no_metadata(summary.server_round, training.updates)
        _log_missing("train", training.missing)
        _log_missing("evaluate", summary.evaluation.missing)
        if reason := lost_replies(summary):
            self.not_repeatable(summary.server_round, "replies", reason)
        self._record(
            RoundFinished(
                round=summary.server_round,
                learning_rate=training.learning_rate,
                metrics=dict(summary.metrics),
                train_metrics=dict(training.metrics),
                evaluate_metrics=dict(summary.evaluation.metrics),
                updates=len(training.updates),
                quarantined=len(training.quarantined),
                missing=list(training.missing),
                evaluate_missing=list(summary.evaluation.missing),
                skipped=training.skipped,
                bytes_up=training.bytes_up,
                cosines=dict(training.cosines),
                phases={name: round(seconds, 6) for name, seconds in phases.items()},
                seconds=summary.seconds,
            )
        )
        logger.info(round_line(summary))

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Write the resume point of a round, unless the record of the round cannot be."""
        if self._run is None:
            return
        try:
            self._run.flush()  # a round whose events only wait in memory is not one to go on from
            write_snapshot(self._run.path, snapshot)
        except OSError as error:
            logger.warning("no resume point for round %d (%s)", snapshot.server_round, error)
            self._record(SnapshotFailed(round=snapshot.server_round, error=_said(error)))

    def run_finished(self, state: RunState, metrics: Mapping[str, Any]) -> None:
        """Keep the last model, and record the end."""
        arrays = to_ndarrays(state.arrays)
        sha256 = model_sha256(arrays)
        if self._run is not None:
            try:
                save_final(self._run.path, arrays)
            except OSError as error:
                logger.warning("%s: not written (%s)", FINAL, error)
                self._run.not_written(FINAL, error)
                self._record(
                    CheckpointFailed(
                        round=state.server_round,
                        metric="",
                        value=0.0,
                        file=FINAL,
                        error=_said(error),
                    )
                )
        self._record(
            RunFinished(
                rounds=state.server_round,
                best=state.best,
                metrics=dict(metrics),
                sha256=sha256,
                seconds=time.monotonic() - self._began,
            )
        )

    def _warn_of_no_metadata(self, server_round: int, updates: Sequence[ClientUpdate[Any]]) -> None:
        """Warn, once in a run, of a round in which every client's metadata was refused."""
        errors = [update.metadata_error for update in updates if update.metadata_error]
        if self._warned_of_metadata or not errors or len(errors) < len(updates):
            return
        self._warned_of_metadata = True
        logger.warning("round %d: no client sent usable metadata: %s", server_round, errors[0])

    def _record(self, event: Event) -> None:
        if self._run is not None:
            self._run.record(event)


def round_line(summary: RoundSummary[Any]) -> str:
    """Return one line on a round: the model, the learning rate, the clients, and their numbers.

    The numbers are those of the server's evaluation, and those of the training: averaged metrics
    and what ``on_train_metadata`` returned. A star marks the best model so far.

    Examples
    --------
    >>> from fedwaggle.strategy import Evaluation, Training
    >>> metrics = {"accuracy": 0.8125, "loss": 0.5}
    >>> round_line(RoundSummary(3, 20, Training(), Evaluation(), metrics, True, 4.0))
    'round   3/20*  accuracy 81.25 %  loss 0.5'
    """
    training = summary.training
    parts = [
        f"round {summary.server_round:3d}/{summary.num_rounds}{'*' if summary.is_best else ' '}",
        *_numbers(summary.metrics),
    ]
    if training.cohort:
        if training.learning_rate is not None:
            parts.append(f"lr {training.learning_rate:.4g}")
        parts.append(f"clients {len(training.updates)}/{len(training.cohort)}")
        parts += _numbers(training.metrics)
    return "  ".join(parts)


def _numbers(metrics: Mapping[str, Any]) -> list[str]:
    return [
        f"{printable(name, _LONGEST_NAME)} {value_text(name, value)}"
        for name, value in metrics.items()
        if isinstance(value, int | float)
    ]


def _log_missing(phase: str, clients: Sequence[str]) -> None:
    if clients:
        some = ", ".join(clients[:20]) + (", ..." if len(clients) > 20 else "")
        logger.warning("%s: no reply in time from %d clients: %s", phase, len(clients), some)


def _as_dict(metadata: object) -> dict[str, Any] | None:
    """Return a dataclass's fields by name; what is nested in them is written by pydantic."""
    if metadata is None:
        return None
    return {field.name: getattr(metadata, field.name) for field in fields(metadata)}  # type: ignore[arg-type]


def _said(error: Exception) -> str:
    return printable(f"{type(error).__name__}: {error}", 500)
