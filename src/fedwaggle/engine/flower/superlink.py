"""A SuperLink of one's own: started, and stopped in order."""

from __future__ import annotations

import http.client
import signal
import subprocess
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from fedwaggle.engine.flower.commands import FlowerCommands, without_colours
from fedwaggle.engine.flower.guard import start_guard
from fedwaggle.engine.flower.home import CONNECTION, Home, find_command
from fedwaggle.engine.processes import ProcessFamily
from fedwaggle.errors import EngineError

__all__ = ["SuperLink"]

# Seconds. Generous, since a busy machine is slow; what waits ends early when all is well.
START_SECONDS = 60.0
WORKERS_SECONDS = 30.0
SERVERS_SECONDS = 10.0

_SERVE = ("--insecure", "--simulation", "--host", "127.0.0.1")  # no TLS: for this machine alone
_STOPS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class SuperLink:
    """A SuperLink that serves one run; leaving the context stops it and all that it started.

    Parameters
    ----------
    home : Home
        Where it lives.

    Attributes
    ----------
    commands : FlowerCommands
        What it is asked.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self.commands = FlowerCommands(
            CONNECTION, environment=home.environment, folder=home.work, look=self._look
        )
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

    def stop_runs(self) -> None:
        """Ask the SuperLink to stop whatever it runs; a SuperLink that is gone runs nothing."""
        try:
            for status in self.commands.statuses():
                if not status.finished:
                    self.commands.stop(status.run_id)
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

    def _look(self) -> None:
        """See that the server is alive, and who belongs to it while that can be seen."""
        self._check_alive()
        self._family.members()

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
        text = without_colours(self._log.read_text(encoding="utf-8", errors="replace"))
        return "\n".join(text.splitlines()[-10:]) or "nothing"


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
