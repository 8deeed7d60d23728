"""MLflow: a run of theirs for each run folder, in an experiment named by the project.

``MLFLOW_TRACKING_URI`` names the server. Without it, runs are kept in ``mlflow.db`` beside the run
folders, and ``mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db`` shows them. A run that is
resumed goes on in the same run of MLflow.

MLflow has no histograms: of a distribution over the clients, its tenth, median and ninth decile
are metrics, and every client's numbers are a table among the artifacts.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from fedwaggle.numbers import is_ordinary
from fedwaggle.runs.events import (
    ClientUpdated,
    Event,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
)
from fedwaggle.runs.paths import REPORT
from fedwaggle.runs.report.stats import spread
from fedwaggle.text import printable
from fedwaggle.trackers.happenings import happening
from fedwaggle.trackers.round_metrics import RoundFacts, Rounds, update_fields

__all__ = ["MlflowTracker", "open_tracker"]

_MOST_IN_A_BATCH = 500  # MLflow takes 1,000 metrics at once, and 100 parameters
_MOST_PARAMS = 100
_MOST_ROWS = 100_000  # of a table among the artifacts
_RUN_TAG, _ROUND_TAG = "waggle.run", "waggle.round"


def open_tracker(run_path: Path, project: str, warn: Callable[[str], None]) -> MlflowTracker:
    """Start or resume the MLflow run of a run folder.

    Parameters
    ----------
    run_path : Path
        The run's folder.
    project : str
        Name of the experiment.
    warn : Callable[[str], None]
        Not used: what fails raises.
    """
    asked = os.environ.get("MLFLOW_TRACKING_URI")
    client = MlflowClient(asked or f"sqlite:///{run_path.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(project)
    place = None if asked else (run_path.parent / "mlflow-artifacts").as_uri()
    number = experiment.experiment_id if experiment else client.create_experiment(project, place)
    wanted = f"tags.`{_RUN_TAG}` = '{run_path.name}'"
    found = client.search_runs([number], wanted, max_results=1)
    run = (
        found[0]
        if found
        else client.create_run(number, run_name=run_path.name, tags={_RUN_TAG: run_path.name})
    )
    shown = int(run.data.tags.get(_ROUND_TAG, -1))
    return MlflowTracker(client, run.info.run_id, run_path, shown=shown)


class MlflowTracker:
    """Shows a run in MLflow.

    Parameters
    ----------
    client : MlflowClient
        MLflow's client.
    run_id : str
        MLflow's id of the run.
    run_path : Path
        The run's folder; the report in it becomes an artifact at the end.
    shown : int
        The last round that MLflow has already; it and those before are not sent again.
    """

    def __init__(self, client: MlflowClient, run_id: str, run_path: Path, *, shown: int) -> None:
        self._client, self._id, self._run_path = client, run_id, run_path
        self._shown = shown
        self._rounds = Rounds()
        self._clients: list[tuple[object, ...]] = []
        self._happenings: list[tuple[object, ...]] = []
        self._converged: list[tuple[object, ...]] = []
        self._status = "FAILED"  # until the run states that it ended well

    def record(self, event: Event) -> None:
        """Show an event."""
        facts = self._rounds.see(event)
        if facts is not None:
            self._show_round(facts)
        if said := happening(event):
            self._happenings.append((event.time.isoformat(), *said))
        match event:
            case RunStarted():
                self._configure(event.config)
                about = {"strategy": event.strategy, "engine": event.engine, "seed": event.seed}
                self._tag({f"waggle.{key}": str(value) for key, value in about.items()})
            case RunResumed():
                self._tag(
                    {f"waggle.changed.{k}": str(now) for k, (_, now) in event.changes.items()}
                )
            case ClientUpdated():
                self._keep(event)
            case RunFinished():
                self._status = "FINISHED"
                self._tag({"waggle.sha256": event.sha256})
            case RunFailed():
                self._tag({"waggle.error": printable(event.error)})

    def close(self) -> None:
        """Add the tables and the report, and end the MLflow run."""
        for name, heading, rows in (
            ("clients.csv", ("round", "client", "field", "value"), self._clients),
            ("convergence.csv", ("round", "client", "training_time"), self._converged),
            ("happenings.csv", ("time", "what", "text", "round", "client"), self._happenings),
        ):
            if rows:
                self._client.log_text(self._id, _as_csv(heading, rows), name)
        if (self._run_path / REPORT).exists():
            self._client.log_artifact(self._id, str(self._run_path / REPORT))
        self._client.set_terminated(self._id, self._status)

    def _show_round(self, facts: RoundFacts) -> None:
        self._converged += [(c.round, c.client, c.training_time) for c in facts.converged]
        if facts.round <= self._shown:
            return
        self._shown = facts.round
        newly = {"clients/newly_converged": float(len(facts.converged))}
        values = {**facts.scalars, **_deciles(facts.samples), **newly}
        when = int(facts.time.timestamp() * 1000)
        metrics = [
            Metric(name, value, when, facts.round)
            for name, value in values.items()
            if is_ordinary(value)
        ]
        for batch in _batches(metrics):
            self._client.log_batch(self._id, metrics=batch)
        self._tag({_ROUND_TAG: str(facts.round)})

    def _keep(self, update: ClientUpdated) -> None:
        if len(self._clients) < _MOST_ROWS:
            client = printable(update.client, 100)
            self._clients += [
                (update.round, client, name, value[-1] if isinstance(value, list) else value)
                for name, value in update_fields(update)
            ]

    def _configure(self, config: dict[str, Any]) -> None:
        params = [Param(key, printable(str(value))) for key, value in config.items()]
        for batch in _batches(params, _MOST_PARAMS):
            self._client.log_batch(self._id, params=batch)

    def _tag(self, values: dict[str, str]) -> None:
        tags = [RunTag(key, value) for key, value in values.items()]
        self._client.log_batch(self._id, tags=tags)


def _deciles(samples: dict[str, list[float]]) -> dict[str, float]:
    """Return the tenth, the median and the ninth decile of each distribution."""
    found = {}
    for name, values in samples.items():
        lies = spread(values)
        if lies is None:
            continue
        found[f"{name}/median"] = lies.median
        if lies.count > 1:
            found |= {f"{name}/p10": lies.p10, f"{name}/p90": lies.p90}
    return found


def _batches(values: Sequence[Any], size: int = _MOST_IN_A_BATCH) -> Iterable[Sequence[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _as_csv(heading: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([heading, *rows])
    return text.getvalue()
