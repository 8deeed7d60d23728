"""The rules of a round: how long it waits, what it admits, when it gives up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fedwaggle.config import RunConfig
from fedwaggle.strategy.bounds.outliers import OutlierRule

__all__ = ["RoundRules"]

_DEFAULT = RunConfig()  # each default is written once, beside its key


@dataclass(frozen=True, kw_only=True)
class RoundRules:
    """How long a round waits, what it admits, and when the run gives up.

    Attributes
    ----------
    min_replies : int
        Usable replies after which a round waits only ``grace`` seconds more; 0 waits for all.
    grace : float
        Seconds that the others still have.
    node_timeout : float
        Seconds to wait for enough nodes, and for their names.
    max_skipped_rounds : int
        Skipped rounds in a row that end the run; 0 never does.
    cooldown_after : int
        Misses in a row after which a client rests; 0 lets nobody rest. A crash is a miss, and a
        usable update ends the row. Another quarantined reply neither is a miss nor ends the row.
    cooldown_rounds : int
        For how many rounds it rests.
    on_bad_metadata : {"keep-weights", "drop-reply"}
        What happens to an update whose metadata is refused.
    max_num_examples : int
        The most examples that a client may claim.
    fold_buffer : int
        Bytes of replies that may wait in memory for their turn in the sum.
    metadata_budget : int
        Bytes of metadata that a round keeps decoded.
    outliers : OutlierRule
        How far a reply may be out of line with the others.
    """

    min_replies: int = _DEFAULT.min_replies
    grace: float = _DEFAULT.grace
    node_timeout: float = _DEFAULT.node_timeout
    max_skipped_rounds: int = _DEFAULT.max_skipped_rounds
    cooldown_after: int = _DEFAULT.cooldown_after
    cooldown_rounds: int = _DEFAULT.cooldown_rounds
    on_bad_metadata: Literal["keep-weights", "drop-reply"] = _DEFAULT.on_bad_metadata
    max_num_examples: int = _DEFAULT.max_num_examples
    fold_buffer: int = _DEFAULT.fold_buffer
    metadata_budget: int = _DEFAULT.metadata_budget
    outliers: OutlierRule = field(default_factory=OutlierRule)

    @classmethod
    def of(cls, config: RunConfig) -> RoundRules:
        """Return the rules that a run config asks for."""
        return cls(
            min_replies=config.min_replies,
            grace=config.grace,
            node_timeout=config.node_timeout,
            max_skipped_rounds=config.max_skipped_rounds,
            cooldown_after=config.cooldown_after,
            cooldown_rounds=config.cooldown_rounds,
            on_bad_metadata=config.on_bad_metadata,
            max_num_examples=config.max_num_examples,
            fold_buffer=config.fold_buffer,
            metadata_budget=config.metadata_budget,
            outliers=OutlierRule.of(config),
        )
