"""The mixin that makes any Flower strategy read what its clients say, and record what happened.

Put :class:`Waggle` before a strategy class of Flower's::

    class CustomFedAdagrad(Waggle[TrainProcessMetadata], FedAdagrad): ...

It replaces Flower's round loop by its own, with the same signature, and calls Flower's verbs
(``configure_train``, ``aggregate_train``, ``configure_evaluate``, ``aggregate_evaluate``), so
the step is Flower's own, and a user's overrides count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar, cast

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedwaggle.metadata import DEFAULT_MAX_BYTES, Codec
from fedwaggle.runs import Run
from fedwaggle.schedules import Schedule
from fedwaggle.strategy.clients import Clients, client_order
from fedwaggle.strategy.journal import Journal
from fedwaggle.strategy.rounds import Evaluation, RoundSummary, Training
from fedwaggle.strategy.updates import ClientUpdate, Contract, Quarantined, read_reply, refusal

__all__ = ["Waggle"]

M = TypeVar("M")
EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


class Waggle(Strategy, Generic[M]):
    """A mixin that goes before any Flower strategy class.

    Parameters
    ----------
    metadata : type[M], optional
        The dataclass that clients send under ``content["metadata"]``; None reads no metadata.
    learning_rate : Schedule, optional
        The clients' learning rate as a function of the round. It is sent as ``config["lr"]``.
    run : Run, optional
        Where the run is recorded. Without one nothing is written and no checkpoint is kept.
    best_metric : str (default: "accuracy")
        The metric of the server's evaluation, or else of the clients', that picks the best model.
    best_mode : {"max", "min"} (default: "max")
        Whether more or less of it is better.
    codec : {"json", "pickle"} (default: "json")
        How clients encode metadata.
    trust_pickle : bool (default: False)
        Needed for ``codec="pickle"``, with which every client can run code on this server.
    max_metadata_bytes : int (default: 1 MiB)
        Larger metadata is refused before it is decoded.
    **strategy : Any
        What the Flower strategy takes.

    Raises
    ------
    ConfigError
        If ``codec="pickle"`` comes without ``trust_pickle=True``.
    """

    def __init__(
        self,
        *,
        metadata: type[M] | None = None,
        learning_rate: Schedule | None = None,
        run: Run | None = None,
        best_metric: str = "accuracy",
        best_mode: Literal["max", "min"] = "max",
        codec: Codec = "json",
        trust_pickle: bool = False,
        max_metadata_bytes: int = DEFAULT_MAX_BYTES,
        **strategy: Any,  # noqa: ANN401  # whatever the strategy behind this mixin takes
    ) -> None:
        super().__init__(**strategy)
        self.contract = (
            Contract(metadata, codec, trust_pickle, max_metadata_bytes) if metadata else None
        )
        self.learning_rate = learning_rate
        self.journal = Journal(run, best_metric, best_mode)

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

        A round without one usable update keeps the model, so the result is never empty.
        """
        train_config = train_config or ConfigRecord()
        evaluate_config = evaluate_config or ConfigRecord()
        evaluate = evaluate_fn or _no_evaluation
        clients = Clients(grid, timeout)
        result = Result(arrays=initial_arrays)

        self.journal.run_started(self, grid, num_rounds)
        self._finish_round(0, result, Training(), Evaluation(), evaluate)
        for server_round in range(1, num_rounds + 1):
            training = self._train(server_round, result.arrays, train_config, clients)
            result.arrays = training.arrays or result.arrays
            evaluation = self._evaluate(server_round, result.arrays, evaluate_config, clients)
            self._finish_round(server_round, result, training, evaluation, evaluate)
        self.journal.run_finished(result)
        return result

    # -- The steps of a round ----------------------------------------------------------------

    def _train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, clients: Clients
    ) -> Training[M]:
        """Train a cohort: configure, send, read each reply as it arrives, aggregate."""
        cohort = list(self.configure_train(server_round, arrays, config, clients.grid))
        rate = _learning_rate(cohort)
        self.journal.round_started(server_round, rate, cohort, clients.grid)
        updates: list[ClientUpdate[M | None]] = []
        quarantined: list[Quarantined] = []
        for client, arrival in clients.ask(cohort):
            read = read_reply(
                arrival,
                client=client,
                server_round=server_round,
                weighted_by_key=self._weighted_by_key,
                contract=self.contract,
            )
            self.journal.reply(server_round, read)
            updates.append(read) if isinstance(read, ClientUpdate) else quarantined.append(read)
        # Sums of floats depend on their order: by client, whoever was first.
        updates.sort(key=lambda update: client_order(update.client))
        new_arrays, metrics = self._aggregate(server_round, updates)
        answered = {reply.node_id for reply in (*updates, *quarantined)}
        return Training(
            learning_rate=rate,
            updates=updates,
            quarantined=quarantined,
            missing=[clients.name(n) for n in _node_ids(cohort) if n not in answered],
            arrays=new_arrays,
            metrics=metrics,
        )

    def _aggregate(
        self, server_round: int, updates: Sequence[ClientUpdate[M | None]]
    ) -> tuple[ArrayRecord | None, dict[str, Any]]:
        """Let the subclass read the metadata, and Flower's strategy take its step."""
        if not updates:
            return None, {}
        read = [update for update in updates if update.metadata is not None]
        said = self.on_train_metadata(server_round, cast("list[ClientUpdate[M]]", read))
        arrays, metrics = self.aggregate_train(server_round, [u.message for u in updates])
        return arrays, {**(metrics or {}), **(said or {})}

    def _evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, clients: Clients
    ) -> Evaluation:
        """Let a cohort evaluate the model: configure, send, collect, aggregate."""
        cohort = list(self.configure_evaluate(server_round, arrays, config, clients.grid))
        usable: list[tuple[str, Message]] = []
        quarantined: list[Quarantined] = []
        for client, arrival in clients.ask(cohort):
            refused = refusal(
                arrival.message, weighted_by_key=self._weighted_by_key, with_arrays=False
            )
            if refused is None:
                usable.append((client, arrival.message))
                continue
            bad = Quarantined(client, arrival.node_id, *refused, arrival.seconds)
            self.journal.reply(server_round, bad, phase="evaluate")
            quarantined.append(bad)
        usable.sort(key=lambda pair: client_order(pair[0]))
        replies = [message for _, message in usable]
        metrics = self.aggregate_evaluate(server_round, replies) if replies else None
        return Evaluation(quarantined=quarantined, metrics=dict(metrics or {}))

    def _finish_round(
        self,
        server_round: int,
        result: Result,
        training: Training[M],
        evaluation: Evaluation,
        evaluate: EvaluateFn,
    ) -> None:
        """Evaluate the new model, keep it if it is the best, and record the round."""
        metrics = dict(evaluate(server_round, result.arrays) or {})
        histories = (
            (result.train_metrics_clientapp, training.metrics),
            (result.evaluate_metrics_clientapp, evaluation.metrics),
            (result.evaluate_metrics_serverapp, metrics),
        )
        for history, values in histories:
            if values:
                history[server_round] = MetricRecord(values)
        summary = self.journal.round_finished(
            server_round, result.arrays, training, evaluation, metrics
        )
        self.on_round_end(summary)

    @property
    def _weighted_by_key(self) -> str:
        return getattr(self, "weighted_by_key", "num-examples")


def _no_evaluation(server_round: int, arrays: ArrayRecord) -> None:
    """Stand in for an ``evaluate_fn`` that was not given."""


def _node_ids(messages: Sequence[Message]) -> list[int]:
    return [message.metadata.dst_node_id for message in messages]


def _learning_rate(cohort: Sequence[Message]) -> float | None:
    """Return the rate that the cohort was really sent, whoever set it."""
    rates = (
        record["lr"]
        for message in cohort[:1]
        for record in message.content.config_records.values()
        if "lr" in record
    )
    rate = next(rates, None)
    return float(rate) if isinstance(rate, int | float) else None
