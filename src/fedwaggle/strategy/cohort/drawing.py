"""The clients that are drawn for one phase of a round, and their replies.

The strategy draws them by its own code, under a seed that is a function of (seed, purpose,
round) and from a grid in the order of client names, so the same run draws the same clients on
every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Literal

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp.strategy import Strategy

from fedwaggle.identity import client_order
from fedwaggle.seeds import derive_seed
from fedwaggle.strategy.cohort.roster import Roster, RosterGrid, seeded_sampling
from fedwaggle.strategy.exchange import Arrival, Patience, exchange
from fedwaggle.strategy.layers import setting_of
from fedwaggle.strategy.replies.messages import bytes_of, config_value, with_config
from fedwaggle.strategy.replies.trees import number_by_name
from fedwaggle.strategy.rules import RoundRules

__all__ = ["Cohort", "Phase", "ask", "draw"]

Phase = Literal["train", "evaluate"]


@dataclass(frozen=True)
class Cohort:
    """The clients of one phase of a round.

    Attributes
    ----------
    members : list[tuple[str, Message]]
        Clients by name, each with what it is sent, in the order in which they were drawn.
    available : int
        How many nodes there were.
    resting : list[str]
        Clients that were left out.
    """

    members: list[tuple[str, Message]]
    available: int
    resting: list[str]

    @property
    def clients(self) -> list[str]:
        """Their names, in the order of summation."""
        return sorted((client for client, _ in self.members), key=client_order)

    @property
    def learning_rate(self) -> float | None:
        """The learning rate that they are sent, if it is one."""
        return config_value([message for _, message in self.members], "lr")

    @property
    def bytes_down(self) -> int:
        """Size of the messages together."""
        return sum(bytes_of(message.content) for _, message in self.members)


def draw(
    strategy: Strategy,
    phase: Phase,
    server_round: int,
    *,
    arrays: ArrayRecord,
    config: ConfigRecord,
    roster: Roster,
    resting: set[str],
    node_timeout: float,
    seed: int,
    notices: Callable[[str], Mapping[str, float | str]],
) -> Cohort:
    """Let a Flower strategy draw a cohort, and give each message its client's seed.

    Parameters
    ----------
    strategy : Strategy
        Draws by its ``configure_train`` or ``configure_evaluate``.
    phase : {"train", "evaluate"}
        What the clients are to do.
    server_round : int
        The round.
    arrays : ArrayRecord
        The global model.
    config : ConfigRecord
        What all clients are sent.
    roster : Roster
        The nodes.
    resting : set[str]
        Clients that are left out as long as enough others are there.
    node_timeout : float
        Seconds to wait for enough nodes.
    seed : int
        The seed of the run.
    notices : Callable[[str], Mapping[str, float | str]]
        What else the config of a client's message states.

    Raises
    ------
    NodesError
        If there are not enough nodes in time.
    """
    enough = (
        setting_of(strategy, name, 0) for name in ("min_available_nodes", f"min_{phase}_nodes")
    )
    grid = RosterGrid(roster, resting=resting, enough=max(enough), node_timeout=node_timeout)
    number_by_name(strategy, grid.get_node_ids())
    configure = strategy.configure_train if phase == "train" else strategy.configure_evaluate
    with seeded_sampling(derive_seed(seed, "sample", phase, server_round)):
        drawn = list(configure(server_round, arrays, config, grid))
    key = setting_of(strategy, "configrecord_key", "config")
    members = []
    for message in drawn:
        client = roster.name(message.metadata.dst_node_id)
        client_seed = derive_seed(seed, phase, server_round, client)
        with_config(message, key, {**notices(client), "seed": client_seed})
        members.append((client, message))
    return Cohort(members, grid.available, grid.left_out)


def ask(
    cohort: Cohort, roster: Roster, *, timeout: float, rules: RoundRules, usable: Sized
) -> Iterator[tuple[str, Arrival]]:
    """Send each message, and return each reply with its client's name as it arrives.

    Messages leave in the order of summation, so that few replies come before their turn.

    Parameters
    ----------
    cohort : Cohort
        Who is asked what.
    roster : Roster
        The nodes.
    timeout : float
        Seconds to wait at most.
    rules : RoundRules
        How many replies are enough, and how long the others have then.
    usable : Sized
        The replies that the caller can use so far: a bad reply ends no waiting.
    """
    enough = min(rules.min_replies, len(cohort.members))
    patience = Patience(timeout, lambda: 0 < enough <= len(usable), rules.grace)
    in_order = sorted(cohort.members, key=lambda member: client_order(member[0]))
    arrivals = exchange(roster.grid, [message for _, message in in_order], patience)
    return ((roster.name(arrival.node_id), arrival) for arrival in arrivals)
