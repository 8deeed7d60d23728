"""Waggle: federated learning in which clients tell the server more than weights.

Everything public that an app needs can be imported from here. Names are imported when they are
first used, so that a command which only reads a run does not wait for torch or Flower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedwaggle.lazy import imported

if TYPE_CHECKING:
    from fedwaggle.config import RunConfig, read_config
    from fedwaggle.convergence import has_converged, keep_first_loss, read_first_loss
    from fedwaggle.data import (
        Examples,
        batches,
        fingerprint,
        load_partition,
        load_split,
        make_partitioner,
        to_tensors,
    )
    from fedwaggle.errors import (
        ConfigError,
        DatasetError,
        DiskError,
        EngineError,
        MetadataCode,
        MetadataError,
        NodesError,
        RunError,
        TrackerError,
        WaggleError,
    )
    from fedwaggle.identity import answer_identity
    from fedwaggle.instructions import Instructions, read_instructions
    from fedwaggle.metadata import pack, schema_of, unpack
    from fedwaggle.runs import Run, open_run
    from fedwaggle.schedules import (
        Schedule,
        constant,
        cosine,
        exponential,
        join,
        schedule_of,
        step_decay,
        warmup,
    )
    from fedwaggle.seeds import derive_seed, seed_everything
    from fedwaggle.strategy import (
        ClientUpdate,
        Decision,
        Policy,
        RestStragglers,
        RoundRules,
        RoundSummary,
        StopWhenConverged,
        Waggle,
        trainable_names,
    )
    from fedwaggle.trackers import open_trackers

__all__ = [
    "ClientUpdate",
    "ConfigError",
    "DatasetError",
    "Decision",
    "DiskError",
    "EngineError",
    "Examples",
    "Instructions",
    "MetadataCode",
    "MetadataError",
    "NodesError",
    "Policy",
    "RestStragglers",
    "RoundRules",
    "RoundSummary",
    "Run",
    "RunConfig",
    "RunError",
    "Schedule",
    "StopWhenConverged",
    "TrackerError",
    "Waggle",
    "WaggleError",
    "answer_identity",
    "batches",
    "constant",
    "cosine",
    "derive_seed",
    "exponential",
    "fingerprint",
    "has_converged",
    "join",
    "keep_first_loss",
    "load_partition",
    "load_split",
    "make_partitioner",
    "open_run",
    "open_trackers",
    "pack",
    "read_config",
    "read_first_loss",
    "read_instructions",
    "schedule_of",
    "schema_of",
    "seed_everything",
    "step_decay",
    "to_tensors",
    "trainable_names",
    "unpack",
    "warmup",
]

_HOMES = {
    "ClientUpdate": "strategy",
    "ConfigError": "errors",
    "DatasetError": "errors",
    "Decision": "strategy",
    "DiskError": "errors",
    "EngineError": "errors",
    "Examples": "data",
    "Instructions": "instructions",
    "MetadataCode": "errors",
    "MetadataError": "errors",
    "NodesError": "errors",
    "Policy": "strategy",
    "RestStragglers": "strategy",
    "RoundRules": "strategy",
    "RoundSummary": "strategy",
    "Run": "runs",
    "RunConfig": "config",
    "RunError": "errors",
    "Schedule": "schedules",
    "StopWhenConverged": "strategy",
    "TrackerError": "errors",
    "Waggle": "strategy",
    "WaggleError": "errors",
    "answer_identity": "identity",
    "batches": "data",
    "constant": "schedules",
    "cosine": "schedules",
    "derive_seed": "seeds",
    "exponential": "schedules",
    "fingerprint": "data",
    "has_converged": "convergence",
    "join": "schedules",
    "keep_first_loss": "convergence",
    "load_partition": "data",
    "load_split": "data",
    "make_partitioner": "data",
    "open_run": "runs",
    "open_trackers": "trackers",
    "pack": "metadata",
    "read_config": "config",
    "read_first_loss": "convergence",
    "read_instructions": "instructions",
    "schedule_of": "schedules",
    "schema_of": "metadata",
    "seed_everything": "seeds",
    "step_decay": "schedules",
    "to_tensors": "data",
    "trainable_names": "strategy",
    "unpack": "metadata",
    "warmup": "schedules",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    return imported(__name__, _HOMES, name)


def __dir__() -> list[str]:
    """List the public names too, for a prompt that completes them."""
    return sorted({*globals(), *__all__})
