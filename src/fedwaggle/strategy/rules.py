"""The rules of a round: how long it waits, what it admits, when it gives up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fedwaggle.config import RunConfig
from fedwaggle.strategy.bounds.outliers import OutlierRule

__all__ = ["RoundRules"]


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

    min_replies: int = 0
    grace: float = 0.0
    node_timeout: float = 600.0
    max_skipped_rounds: int = 3
    cooldown_after: int = 3
    cooldown_rounds: int = 5
    on_bad_metadata: Literal["keep-weights", "drop-reply"] = "keep-weights"
    max_num_examples: int = 10_000_000
    fold_buffer: int = 67_108_864
    metadata_budget: int = 4_194_304
    outliers: OutlierRule = field(default_factory=OutlierRule)

    @classmethod
    def of(cls, config: RunConfig) -> RoundRules:
        """Return the rules that a run config asks for."""
        names = cls.__dataclass_fields__.keys() - {"outliers"}
        outliers = OutlierRule(
            share=config.outlier_share,
            clip_norm=config.outlier_clip_norm,
            clip_weight=config.outlier_clip_weight,
            quarantine=config.outlier_quarantine,
        )
        return cls(outliers=outliers, **{name: getattr(config, name) for name in names})
