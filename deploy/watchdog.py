"""Look whether a SuperLink still starts the runs that are submitted to it; act if it does not.

    python watchdog.py CONNECTION --after SECONDS --then COMMAND

A SuperLink whose database is locked, as by one record of hundreds of MB, answers and accepts
runs, but they stay pending. Exit status: 0 all is well, 1 a run is stuck or the SuperLink does not
answer; COMMAND was run then.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

NOT_STARTED = {"pending", "starting"}


def stuck_runs(runs: Iterable[Mapping[str, object]], now: datetime, seconds: float) -> list[str]:
    """Return the ids of runs that were submitted ``seconds`` ago and have not started."""
    stuck = []
    for run in runs:
        submitted = datetime.fromisoformat(str(run["pending-at"]))
        waited = (now - submitted).total_seconds()
        if run["status"] in NOT_STARTED and waited > seconds:
            stuck.append(str(run["run-id"]))
    return stuck


def listed_runs(connection: str, seconds: float) -> list[Mapping[str, object]]:
    """Ask the SuperLink for its runs; raise OSError if it does not answer in time."""
    try:
        done = subprocess.run(
            ["flwr", "list", connection, "--format", "json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        answer = json.loads(done.stdout[max(done.stdout.find("{"), 0) :])
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise OSError(f"no answer: {error}") from error
    if not answer.get("success"):
        raise OSError(str(answer.get("error-message", "no reason given")))
    return list(answer["runs"])


def main() -> int:
    """Look once."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("connection", help="name of the SuperLink in Flower's config.toml")
    parser.add_argument("--after", type=float, default=300.0, metavar="SECONDS")
    parser.add_argument("--then", default="", metavar="COMMAND")
    asked = parser.parse_args()
    try:
        runs = listed_runs(asked.connection, seconds=60.0)
    except OSError as error:
        reason = f"the SuperLink does not answer ({error})"
    else:
        stuck = stuck_runs(runs, datetime.now(UTC), asked.after)
        reason = f"runs that do not start: {', '.join(stuck)}" if stuck else ""
    if not reason:
        return 0
    print(reason, file=sys.stderr)
    if asked.then:
        subprocess.run(shlex.split(asked.then), check=False)
    return 1


if __name__ == "__main__":
    sys.exit(main())
