"""What is asked of a SuperLink, through stock ``flwr``: submit a run, follow it, stop it.

``flwr`` itself reports little: it ends with 0 whatever becomes of a run that it has submitted.
So the SuperLink is asked (``flwr list``), and only ``finished:completed`` counts as success.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fedwaggle.engine.flower.home import find_command
from fedwaggle.errors import EngineError
from fedwaggle.text import printable

__all__ = ["COMPLETED", "LOOK_SECONDS", "FlowerCommands", "RunStatus", "without_colours"]

COMPLETED = "finished:completed"

# Seconds. Generous, since a busy machine is slow; what waits ends early when all is well.
COMMAND_SECONDS = 120.0
LOOK_SECONDS = 2.0

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class RunStatus:
    """What the SuperLink reports of a run.

    Attributes
    ----------
    run_id : str
        Flower's number of the run.
    status : str
        Such as ``running``, ``finished:completed``, ``finished:failed``.
    details : str
        Why it failed; "N/A" if there is nothing to say.
    """

    run_id: str
    status: str
    details: str

    @property
    def finished(self) -> bool:
        """Whether the run is over, well or not."""
        return self.status.startswith("finished:")


class FlowerCommands:
    """The commands of ``flwr``, for one connection.

    Parameters
    ----------
    connection : str
        The name of the connection in Flower's ``config.toml``.
    environment : Mapping[str, str]
        Their environment, ``FLWR_HOME`` among it.
    folder : Path
        Where they run.
    look : Callable[[], None]
        Called whenever something is waited for; raises to end the wait.
    """

    def __init__(
        self,
        connection: str,
        *,
        environment: Mapping[str, str],
        folder: Path,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._environment = dict(environment)
        self._folder = folder
        self._look = look
        self._flwr = find_command("flwr", simulates=False)

    def submit(self, app: Path, config: Path, federation: Mapping[str, int | float]) -> str:
        """Submit an app with ``flwr run``, and return the run's id.

        Parameters
        ----------
        app : Path
            The app's folder.
        config : Path
            TOML file of the run config's overrides.
        federation : Mapping[str, int | float]
            Flower's keys for a simulation, such as ``num-supernodes``; empty on a federation.

        Raises
        ------
        EngineError
            If Flower refuses it, with Flower's words.
        """
        overrides = ["--run-config", str(config)]
        if federation:
            pairs = " ".join(f"{key}={value}" for key, value in federation.items())
            overrides += ["--federation-config", pairs]
        return str(self._ask("run", str(app), self._connection, *overrides)["run-id"])

    def follow(self, run_id: str, log: IO[str] | int | None) -> RunStatus:
        """Send a run's log to ``log`` as it comes, until the run is over; return how it ended.

        Parameters
        ----------
        run_id : str
            The run.
        log : IO[str] | int | None
            A file; None for the standard output of this process.
        """
        self._stream_log(run_id, log)
        while not (status := self.status(run_id)).finished:
            self._look()
            time.sleep(LOOK_SECONDS)  # the log ends a moment before the run does
        return status

    def log_lines(self, run_id: str) -> Iterator[str]:
        """Yield the lines of a run's log, from the first, as they come; stop when it ends.

        The log ends with the run, and also when the SuperLink goes away.
        """
        with self._log_stream(run_id, subprocess.PIPE) as stream:
            assert stream.stdout is not None  # noqa: S101  # it is a pipe
            for line in stream.stdout:
                yield without_colours(line.decode(errors="replace")).rstrip()

    def status(self, run_id: str) -> RunStatus:
        """Return what the SuperLink reports of a run."""
        return next(status for status in self.statuses() if status.run_id == run_id)

    def statuses(self) -> list[RunStatus]:
        """Return what the SuperLink reports of all its runs."""
        runs = self._ask("list", self._connection)["runs"]
        return [RunStatus(str(r["run-id"]), r["status"], r["status-details"]) for r in runs]

    def stop(self, run_id: str) -> None:
        """Ask the SuperLink to stop a run."""
        self._ask("stop", run_id, self._connection)

    def _stream_log(self, run_id: str, log: IO[str] | int | None) -> None:
        with self._log_stream(run_id, log) as stream:
            while stream.poll() is None:
                self._look()
                with suppress(subprocess.TimeoutExpired):  # it still streams
                    stream.wait(LOOK_SECONDS)

    @contextmanager
    def _log_stream(
        self, run_id: str, log: IO[str] | int | None
    ) -> Iterator[subprocess.Popen[bytes]]:
        stream = subprocess.Popen(
            [self._flwr, "log", run_id, self._connection, "--stream"],
            cwd=self._folder,
            env={**self._environment, "PYTHONUNBUFFERED": "1"},  # each line when it comes
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield stream
        finally:
            stream.kill()
            stream.wait()

    def _ask(self, command: str, *arguments: str) -> dict[str, Any]:
        """Run a command of ``flwr`` and return the JSON object that it prints."""
        self._look()
        try:
            done = subprocess.run(
                [self._flwr, command, *arguments, "--format", "json"],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=COMMAND_SECONDS,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired as error:
            raise EngineError(
                f"flwr {command}: expected an answer within {COMMAND_SECONDS:.0f} s, got none"
            ) from error
        answer = _read_json(done.stdout)
        if done.returncode != 0 or not answer.get("success", False):
            reason = answer.get("error-message") or done.stdout + done.stderr
            raise EngineError(f"flwr {command} refused: {printable(str(reason), limit=2000)}")
        return answer


def without_colours(text: str) -> str:
    r"""Return what a command printed without its control codes.

    Examples
    --------
    >>> without_colours("\x1b[92mINFO\x1b[0m : done")
    'INFO : done'
    """
    return _ANSI.sub("", text)


def _read_json(output: str) -> dict[str, Any]:
    """Return the JSON object in what a command printed; empty if there is none."""
    plain = without_colours(output)
    start = plain.find("{")
    try:
        answer, _ = json.JSONDecoder().raw_decode(plain[start:] if start >= 0 else "")
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
