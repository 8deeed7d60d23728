"""A SuperLink of one's own: started, asked through stock ``flwr``, and stopped in order.

``flwr`` itself says little: it ends with 0 whatever becomes of a run that it has submitted.
So the SuperLink is asked (``flwr list``), and only ``finished:completed`` counts as success.
"""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from fedwaggle.engine.flower.guard import start_guard
from fedwaggle.engine.flower.home import CONNECTION, Home, find_command
from fedwaggle.engine.processes import ProcessFamily
from fedwaggle.errors import EngineError
from fedwaggle.text import printable

__all__ = ["RunStatus", "SuperLink"]

# Seconds. Generous, since a busy machine is slow; what waits ends early when all is well.
START_SECONDS = 60.0
COMMAND_SECONDS = 120.0
WORKERS_SECONDS = 30.0
SERVERS_SECONDS = 10.0
LOOK_SECONDS = 2.0

_SERVE = ("--insecure", "--simulation", "--host", "127.0.0.1")  # no TLS: for this machine alone
_STOPS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class RunStatus:
    """What the SuperLink says of a run.

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


class SuperLink:
    """A SuperLink that serves one run; leaving the context stops it and all that it started.

    Parameters
    ----------
    home : Home
        Where it lives.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._flwr = find_command("flwr")
        self._log = home.path / "superlink.log"
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                [find_command("flower-superlink"), *_SERVE, "--port", str(home.port)],
                cwd=home.work,
                env=home.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C at the terminal is for this process alone
            )
        self._guard = start_guard(self._server.pid, home.path)
        self._family = ProcessFamily(self._server.pid)

    def __enter__(self) -> Self:
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop in the one order that leaves nothing behind: the run, its workers, the server."""
        try:
            if error is not None:
                self.stop_runs()
                self._family.terminate_workers()  # else they notice the stop within 20 s
            self._family.wait_for_workers(WORKERS_SECONDS)
            self._server.terminate()
            _wait(self._server, SERVERS_SECONDS)
        finally:
            self.kill()  # the rest: agents of Ray outlive it for minutes

    def submit(self, app: Path, federation: Mapping[str, int | float], config: Path) -> str:
        """Submit an app with stock ``flwr run``, and return the run's id.

        Parameters
        ----------
        app : Path
            The app's folder.
        federation : Mapping[str, int | float]
            Flower's keys for the simulation, such as ``num-supernodes``.
        config : Path
            TOML file of the run config's overrides.

        Raises
        ------
        EngineError
            If Flower refuses it, with Flower's words.
        """
        pairs = " ".join(f"{key}={value}" for key, value in federation.items())
        overrides = ["--federation-config", pairs, "--run-config", str(config)]
        answer = self._ask("run", str(app), CONNECTION, *overrides)
        return str(answer["run-id"])

    def follow(self, run_id: str, log: IO[str] | int | None) -> RunStatus:
        """Send a run's log to ``log`` as it comes, until the run is over.

        Parameters
        ----------
        run_id : str
            The run.
        log : IO[str] | int | None
            A file; None for the standard output of this process.

        Returns
        -------
        RunStatus
            How it ended.
        """
        self._stream_log(run_id, log)
        while not (status := self._status(run_id)).finished:
            time.sleep(LOOK_SECONDS)  # the log ends a moment before the run does
        return status

    def stop_runs(self) -> None:
        """Ask the SuperLink to stop whatever it runs; a SuperLink that is gone runs nothing."""
        try:
            for status in self._statuses():
                if not status.finished:
                    self._ask("stop", status.run_id, CONNECTION)
        except EngineError:
            pass  # what does not stop on request is killed

    def kill(self) -> None:
        """End every process of this SuperLink at once, whatever else is asked meanwhile."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        try:
            self._family.kill()
            self._server.wait()
            self._guard.kill()
            self._guard.communicate()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _stream_log(self, run_id: str, log: IO[str] | int | None) -> None:
        stream = subprocess.Popen(
            [self._flwr, "log", run_id, CONNECTION, "--stream"],
            cwd=self._home.work,
            env={**self._home.environment, "PYTHONUNBUFFERED": "1"},  # each line when it comes
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            while stream.poll() is None:
                self._check_alive()
                self._family.members()  # learn who belongs to it while it can be seen
                _wait(stream, LOOK_SECONDS)
        finally:
            stream.kill()
            stream.wait()

    def _status(self, run_id: str) -> RunStatus:
        return next(status for status in self._statuses() if status.run_id == run_id)

    def _statuses(self) -> list[RunStatus]:
        runs = self._ask("list", CONNECTION)["runs"]
        return [RunStatus(str(r["run-id"]), r["status"], r["status-details"]) for r in runs]

    def _ask(self, command: str, *arguments: str) -> dict[str, Any]:
        """Run a command of ``flwr`` and return the JSON object that it prints."""
        self._check_alive()
        try:
            done = subprocess.run(
                [self._flwr, command, *arguments, "--format", "json"],
                cwd=self._home.work,
                env=self._home.environment,
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

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not _is_healthy(self._home.port):
            self._check_alive()
            if time.monotonic() >= deadline:
                raise EngineError(
                    f"Flower's SuperLink: expected it to be ready within {START_SECONDS:.0f} s; "
                    f"it said: {self._last_words()}"
                )
            time.sleep(0.1)

    def _check_alive(self) -> None:
        if self._server.poll() is not None:
            raise EngineError(
                f"Flower's SuperLink ended unexpectedly (exit status {self._server.returncode}); "
                f"it said: {self._last_words()}"
            )

    def _last_words(self) -> str:
        text = _ANSI.sub("", self._log.read_text(encoding="utf-8", errors="replace"))
        return "\n".join(text.splitlines()[-10:]) or "nothing"


def _read_json(output: str) -> dict[str, Any]:
    """Return the JSON object in what a command printed; empty if there is none."""
    plain = _ANSI.sub("", output)
    start = plain.find("{")
    try:
        answer, _ = json.JSONDecoder().raw_decode(plain[start:] if start >= 0 else "")
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _wait(process: subprocess.Popen[Any], seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired):  # it still works
        process.wait(seconds)
