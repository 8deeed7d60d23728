"""Waggle: federated learning in which clients tell the server more than weights.

Everything public that an app needs can be imported from here. Names are imported when they are
first used, so that a command which only reads a run does not wait for torch or Flower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedwaggle.lazy import imported

if TYPE_CHECKING:
    from fedwaggle.client import (
        Instructions,
        answer_identity,
        load_arrays,
        read_instructions,
        reply,
    )
    from fedwaggle.config import RunConfig, read_config
    from fedwaggle.convergence import convergence_test, has_converged
    from fedwaggle.data import (
        Examples,
        TensorExamples,
        fingerprint,
        load,
        load_examples,
        load_images,
        make_partitioner,
        to_examples,
    )
    from fedwaggle.devices import best_device
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
    from fedwaggle.metadata import pack, schema_of, unpack
    from fedwaggle.runs import Run, RunRecord
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
    from fedwaggle.server import initial_model, open_run
    from fedwaggle.simulation.federate import federate
    from fedwaggle.simulation.result import SimulationResult
    from fedwaggle.simulation.simulate import run, simulate
    from fedwaggle.site import safeguards
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
    "RunRecord",
    "Schedule",
    "SimulationResult",
    "StopWhenConverged",
    "TensorExamples",
    "TrackerError",
    "Waggle",
    "WaggleError",
    "answer_identity",
    "best_device",
    "constant",
    "convergence_test",
    "cosine",
    "derive_seed",
    "exponential",
    "federate",
    "fingerprint",
    "has_converged",
    "initial_model",
    "join",
    "load",
    "load_arrays",
    "load_examples",
    "load_images",
    "make_partitioner",
    "open_run",
    "open_trackers",
    "pack",
    "read_config",
    "read_instructions",
    "reply",
    "run",
    "safeguards",
    "schedule_of",
    "schema_of",
    "seed_everything",
    "simulate",
    "step_decay",
    "to_examples",
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
    "Instructions": "client",
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
    "RunRecord": "runs",
    "Schedule": "schedules",
    "SimulationResult": "simulation.result",
    "StopWhenConverged": "strategy",
    "TensorExamples": "data",
    "TrackerError": "errors",
    "Waggle": "strategy",
    "WaggleError": "errors",
    "answer_identity": "client",
    "best_device": "devices",
    "constant": "schedules",
    "convergence_test": "convergence",
    "cosine": "schedules",
    "derive_seed": "seeds",
    "exponential": "schedules",
    "federate": "simulation.federate",
    "fingerprint": "data",
    "has_converged": "convergence",
    "initial_model": "server",
    "join": "schedules",
    "load": "data",
    "load_arrays": "client",
    "load_examples": "data",
    "load_images": "data",
    "make_partitioner": "data",
    "open_run": "server",
    "open_trackers": "trackers",
    "pack": "metadata",
    "read_config": "config",
    "read_instructions": "client",
    "reply": "client",
    "run": "simulation.simulate",
    "safeguards": "site",
    "schedule_of": "schedules",
    "schema_of": "metadata",
    "seed_everything": "seeds",
    "simulate": "simulation.simulate",
    "step_decay": "schedules",
    "to_examples": "data",
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
