"""How long a phase of a round may take, and what a real site is sent beside its task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fedwaggle.grids import FEDERATION, SIMULATION
from fedwaggle.site.code import CODE_KEY
from fedwaggle.site.deadline import DEADLINE_KEY
from fedwaggle.strategy.exchange import Arrival

__all__ = ["Waiting"]

_SIMULATION_SECONDS = 3600.0
_FIRST_SECONDS = 600.0
_LEAST_SECONDS = 120.0
_TIMES_THE_SLOWEST = 3.0
_MOST_MARGIN_SECONDS = 30.0  # a message and its reply travel for some seconds


class Waiting:
    """How long the phases of a run wait for their clients.

    With a ``timeout`` of 0 this is an hour in a simulation, where clients share a machine. On a
    federation, where they work side by side, each has ten minutes until it has answered once, and
    then three times its own slowest reply so far: two minutes at least, an hour at most. So a
    client that hangs costs a round that much, and a slow one is not cut off by fast ones.

    Parameters
    ----------
    timeout : float
        Seconds that were asked for; 0 for the rule above.
    engine : str
        What carries the messages.
    code : str
        Hash of the app's code; empty if it is not known.

    Examples
    --------
    >>> Waiting(0, "local").seconds(["a", "b"]), Waiting(0, "flower-superlink").seconds(["a", "b"])
    (3600.0, 600.0)
    >>> Waiting(30, "flower-superlink").notices("a")
    {'client-deadline': 20.0}
    """

    def __init__(self, timeout: float, engine: str, code: str = "") -> None:
        self._timeout = timeout
        self._engine = engine
        self._code = code if engine in (FEDERATION, SIMULATION) else ""
        self._slowest: dict[str, float] = {}

    def seconds(self, clients: Iterable[str]) -> float:
        """Return how long a phase with these clients may take."""
        return max(map(self._allowance, clients), default=_FIRST_SECONDS)

    def notices(self, client: str) -> dict[str, float | str]:
        """Return what :func:`fedwaggle.site.safeguards` reads in a client's message.

        The client's deadline comes a little before the server's, so that its reason still arrives.
        """
        notices: dict[str, float | str] = {CODE_KEY: self._code} if self._code else {}
        if self._engine == FEDERATION:
            seconds = self._allowance(client)
            notices[DEADLINE_KEY] = seconds - min(_MOST_MARGIN_SECONDS, seconds / 3)
        return notices

    def timed(self, arrivals: Iterable[tuple[str, Arrival]]) -> Iterator[tuple[str, Arrival]]:
        """Yield replies, and learn from those that are no errors how long a client takes."""
        for client, arrival in arrivals:
            if not arrival.message.has_error():
                self._slowest[client] = max(self._slowest.get(client, 0.0), arrival.seconds)
            yield client, arrival

    def _allowance(self, client: str) -> float:
        """Return how long a client may take."""
        if self._timeout > 0:
            return self._timeout
        if self._engine != FEDERATION:
            return _SIMULATION_SECONDS
        if client not in self._slowest:
            return _FIRST_SECONDS
        wanted = max(_LEAST_SECONDS, _TIMES_THE_SLOWEST * self._slowest[client])
        return min(wanted, _SIMULATION_SECONDS)
