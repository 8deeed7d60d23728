"""Running the quickstart as its users do: `waggle run` in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from fedwaggle.runs.events import Event, RunFinished, UnknownEvent
from fedwaggle.runs.listing import find_run
from fedwaggle.runs.reading import current_events, read_events

QUICKSTART = Path(__file__).parents[1] / "quickstart"

# Four clients with 1,500 images each, two of them a round: about a second of training a round.
SMALL = {
    "num-server-rounds": 4,
    "local-epochs": 1,
    "lr": 0.05,
    "batch-size": 50,
    "fraction-evaluate": 0.5,
}


def command(
    outputs: Path, *options: str, settings: Mapping[str, object] = SMALL, nodes: int = 4
) -> list[str]:
    """Return the command that runs the quickstart with its outputs in a folder."""
    values = {**settings, "outputs": str(outputs)}
    pairs = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    waggle = Path(sys.executable).with_name("waggle")
    return [str(waggle), "run", str(QUICKSTART), "--nodes", str(nodes), *pairs, *options]


def run(outputs: Path, *options: str, **keywords: object) -> Path:
    """Run the quickstart to its end, and return the run's folder."""
    line = command(outputs, *options, **keywords)
    done = subprocess.run(line, capture_output=True, text=True, env=plain_env())
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return latest(outputs)


@contextmanager
def running(outputs: Path, *options: str, **keywords: object) -> Iterator[subprocess.Popen[bytes]]:
    """Start the quickstart in a process group of its own; what is left of it is killed."""
    process = subprocess.Popen(
        command(outputs, *options, **keywords),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=plain_env(),
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def plain_env() -> dict[str, str]:
    """Return the environment without what would make a run here different from one elsewhere."""
    return {
        key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "WAGGLE_"))
    }


def latest(outputs: Path) -> Path:
    """Return the last run's folder."""
    return find_run("latest", outputs)


def story(run_folder: Path) -> list[Event | UnknownEvent]:
    """Return the events of a run that count."""
    return current_events(read_events(run_folder / "events.jsonl"))


def of_kind(events: Sequence[Event | UnknownEvent], kind: str) -> list[Event]:
    """Return the events of one kind."""
    return [event for event in events if event.event == kind]


def final_hash(run_folder: Path) -> str:
    """Return the SHA-256 of a finished run's model."""
    (end,) = of_kind(story(run_folder), "run-finished")
    assert isinstance(end, RunFinished)
    return end.sha256
