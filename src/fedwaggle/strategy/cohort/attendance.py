"""Who answers, and who rests: clients that were silent too often are left out for some rounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["Attendance"]


@dataclass(frozen=True)
class Attendance:
    """Which clients did not answer lately, and which of them rest until when.

    Attributes
    ----------
    misses : Mapping[str, int]
        Rounds without an answer since the last usable update, by client.
    rests_until : Mapping[str, int]
        The last round in which a client is left out, by client.
    """

    misses: Mapping[str, int] = field(default_factory=dict)
    rests_until: Mapping[str, int] = field(default_factory=dict)

    def after(
        self,
        server_round: int,
        answered: Iterable[str],
        silent: Iterable[str],
        *,
        rest_after: int,
        rest_rounds: int,
    ) -> Attendance:
        """Return the attendance after a round.

        Parameters
        ----------
        server_round : int
            The round that is over.
        answered, silent : Iterable[str]
            The clients whose update was used, and those that crashed or never answered. Those
            whose reply was quarantined for another reason are in neither, and keep their count.
        rest_after : int
            Misses in a row after which a client rests; 0 lets nobody rest.
        rest_rounds : int
            For how many rounds.

        Examples
        --------
        >>> once = Attendance().after(1, ["0"], ["1"], rest_after=2, rest_rounds=3)
        >>> twice = once.after(2, ["0"], ["1"], rest_after=2, rest_rounds=3)
        >>> once.resting(2), twice.resting(3), twice.resting(5), twice.resting(6)
        (set(), {'1'}, {'1'}, set())
        """
        heard = set(answered)
        misses = {name: count for name, count in self.misses.items() if name not in heard}
        rests = {name: end for name, end in self.rests_until.items() if end > server_round}
        for name in silent:
            misses[name] = misses.get(name, 0) + 1
            if rest_after and misses[name] >= rest_after:
                rests[name] = server_round + rest_rounds
                del misses[name]
        return Attendance(misses, rests)

    def resting_until(self, clients: Iterable[str], server_round: int) -> Attendance:
        """Return the attendance with clients left out up to and in a round.

        Examples
        --------
        >>> Attendance().resting_until(["3"], 7).resting(7)
        {'3'}
        """
        return Attendance(self.misses, {**self.rests_until, **dict.fromkeys(clients, server_round)})

    def resting(self, server_round: int) -> set[str]:
        """Return the clients that are left out in a round."""
        return {name for name, end in self.rests_until.items() if end >= server_round}
