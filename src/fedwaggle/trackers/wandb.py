"""Weights & Biases: a run of theirs for each run folder.

Offline unless an API key is found (``WANDB_API_KEY``, netrc, or W&B's settings) or ``WANDB_MODE``
states otherwise; offline, too, if the service does not answer or refuses the key. Its files are in
the folder ``wandb`` of the run. The id of the W&B run follows from the name of the run folder: a
run that is resumed goes on in the same W&B run. Offline, that is written anew and whole, and the
earlier attempts are moved to ``wandb/superseded``, so that exactly one is left to sync.

Reference: https://docs.wandb.ai/ref/python (0.31).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.request import urlopen

import wandb
from wandb.errors import AuthenticationError, UsageError

from fedwaggle.runs.events import (
    BestModel,
    CheckpointSaved,
    Event,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
)
from fedwaggle.runs.paths import REPORT
from fedwaggle.text import printable
from fedwaggle.trackers.happenings import Happening, happening
from fedwaggle.trackers.round_metrics import Converged, RoundFacts, Rounds

__all__ = ["WandbTracker", "open_tracker", "wandb_id"]

KNOCK_SECONDS = 4.0
INIT_SECONDS = 12.0  # W&B's own limit is 90 s
MAX_TABLE_ROWS = 10_000  # W&B's own limit


def open_tracker(run_path: Path, project: str, warn: Callable[[str], None]) -> WandbTracker:
    """Start or resume the W&B run of a run folder.

    Parameters
    ----------
    run_path : Path
        The run's folder.
    project : str
        The W&B project.
    warn : Callable[[str], None]
        Told why a run that has a key is kept offline.

    Raises
    ------
    wandb.errors.Error
        If the service answers at first, and then takes no run.
    """
    for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):  # else in the user's home
        os.environ.setdefault(variable, str(run_path / "wandb" / "cache"))
    mode = _mode(run_path, warn)
    _set_aside(run_path / "wandb", wandb_id(run_path))
    run = wandb.init(
        project=project,
        id=wandb_id(run_path),
        name=run_path.name,
        dir=run_path,
        mode=mode,
        resume=None if mode == "offline" else "allow",
        settings=wandb.Settings(
            init_timeout=INIT_SECONDS,
            console="off",
            silent=True,
            save_code=False,
            disable_git=True,
            disable_job_creation=True,
        ),
    )
    return WandbTracker(run, run_path)


def wandb_id(run_path: Path) -> str:
    """Return the id of a run folder's W&B run.

    Examples
    --------
    >>> wandb_id(Path("/data/outputs/20260102T030405Z-iid"))
    '89e6bb8eda7abea7'
    """
    return hashlib.blake2b(run_path.name.encode(), digest_size=8).hexdigest()


class WandbTracker:
    """Shows a run in W&B.

    Parameters
    ----------
    run : wandb.Run
        The W&B run. What it already has of its rounds is not sent again.
    run_path : Path
        The run's folder; the report in it is attached at the end.
    """

    def __init__(self, run: wandb.Run, run_path: Path) -> None:
        self._run = run
        self._run_path = run_path
        self._rounds = Rounds()
        self._converged: list[Converged] = []
        self._happenings: list[Happening] = []
        self._exit_code = 1  # until the run states that it ended well
        self._shown: int = run.summary.get("round", -1) if run.resumed else -1  # type: ignore[no-untyped-call]
        # Never ``step``: W&B drops what is logged with a smaller step than before.
        run.define_metric("round")
        run.define_metric("*", step_metric="round")

    def record(self, event: Event) -> None:
        """Show an event."""
        facts = self._rounds.see(event)
        if facts is not None:
            self._show_round(facts)
        if said := happening(event):
            self._happenings.append(said)
        match event:
            case RunStarted():
                self._show_start(event)
            case RunResumed():
                self._configure({key: now for key, (_, now) in event.changes.items()})
            case CheckpointSaved():
                self._show_best(event)
            case RunFinished():
                self._exit_code = 0
                self._run.summary["sha256"] = event.sha256
                if event.best is not None:
                    self._show_best(event.best)
            case RunFailed():
                self._run.summary["error"] = printable(event.error)

    def close(self) -> None:
        """Add the tables and the report, and finish the W&B run."""
        if self._converged:
            self._run.log({"round": self._shown, "convergence": self._table()})
        if self._happenings:
            self._run.log({"round": self._shown, "happenings": self._happenings_table()})
        report = self._run_path / REPORT
        if report.exists():
            artifact = wandb.Artifact(f"report-{self._run.id}", type="report")
            artifact.add_file(str(report))
            self._run.log_artifact(artifact)
        self._run.finish(exit_code=self._exit_code)

    def _show_start(self, started: RunStarted) -> None:
        about = started.model_dump(
            mode="json", include={"strategy", "engine", "nodes", "seed", "versions"}
        )
        self._configure({**started.config, "waggle": {**about, "initial_sha256": started.sha256}})

    def _configure(self, values: dict[str, Any]) -> None:
        self._run.config.update(values, allow_val_change=True)  # type: ignore[no-untyped-call]

    def _show_round(self, facts: RoundFacts) -> None:
        self._converged += facts.converged
        if facts.round <= self._shown:
            return
        self._shown = facts.round
        histograms = {name: wandb.Histogram(values) for name, values in facts.samples.items()}
        self._run.log({"round": facts.round, **facts.scalars, **histograms})

    def _show_best(self, best: BestModel | CheckpointSaved) -> None:
        self._run.summary["best"] = best.model_dump(include={"round", "metric", "value", "sha256"})

    def _happenings_table(self) -> wandb.Table:
        """Return decisions, quarantines, best models and the end; of many, the last ones."""
        table = wandb.Table(columns=["round", "what", "client", "text"])
        for said in self._happenings[-MAX_TABLE_ROWS:]:
            table.add_data(said.round, said.what, said.client, said.text)
        return table

    def _table(self) -> wandb.Table:
        table = wandb.Table(columns=["round", "client", "training_time", "losses"])
        for row in self._converged[:MAX_TABLE_ROWS]:
            losses = ", ".join(f"{loss:.4g}" for loss in row.losses[:100])
            table.add_data(row.round, printable(row.client, 100), row.training_time, losses)
        return table


def _mode(run_path: Path, warn: Callable[[str], None]) -> Literal["offline"] | None:
    """Return offline if no key works; none leaves the choice to W&B's own settings."""
    _restart()
    if os.environ.get("WANDB_MODE"):
        return "offline" if os.environ["WANDB_MODE"] == "offline" else None
    try:
        if not wandb.login(verify=False):
            return "offline"
        _knock(wandb.setup().settings.base_url)
        _restart()  # W&B verifies a key only when it finds it
        wandb.login(verify=True)
    except UsageError:  # there is no key, W&B would ask for one, and here is nobody to ask
        return "offline"
    except (AuthenticationError, OSError) as error:
        warn(
            f"{printable(str(error), 200)}. The run is kept offline; send it later with "
            f"wandb sync {run_path / 'wandb'}/offline-run-*"
        )
        os.environ["WANDB_MODE"] = "offline"  # of this process, which is the tracker's own
        _restart()
        return "offline"
    return None


def _restart() -> None:
    """Let W&B forget what it has found so far, and start anew without a word."""
    wandb.teardown()
    wandb.setup(wandb.Settings(silent=True))


def _knock(url: str) -> None:
    """Raise an OSError if a service does not answer, sooner than W&B would notice it.

    On machines without a way out, connections are often not refused but swallowed.
    """
    try:
        urlopen(url, timeout=KNOCK_SECONDS).close()  # noqa: S310  # the user's own setting
    except HTTPError:  # an answer, too
        pass
    except OSError as error:
        raise OSError(f"{url} does not answer ({error})") from error


def _set_aside(folder: Path, run_id: str) -> None:
    """Move earlier offline attempts at a run to where ``wandb sync --sync-all`` does not look."""
    attempts = sorted(folder.glob(f"offline-run-*-{run_id}"))
    for attempt in attempts:
        aside = folder / "superseded"
        aside.mkdir(exist_ok=True)
        attempt.rename(aside / attempt.name)
