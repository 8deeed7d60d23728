"""Data: sets by name, partitions of them, and tensors to train on.

The idea: a set is read and decoded once in a process, kept as one tensor, and a client's
partition is a list of rows in it. The partitions are flwr-datasets' own.

Names are imported when they are first used: torch, ``datasets`` and ``flwr_datasets`` take
seconds to import, and not every caller needs them all.

Reference: https://flower.ai/docs/datasets/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedwaggle.lazy import imported

if TYPE_CHECKING:
    from fedwaggle.data.flower_partitioners import make_partitioner
    from fedwaggle.data.shares import load_partition, load_split
    from fedwaggle.data.sources import load
    from fedwaggle.data.tensors import Examples, batches, fingerprint, to_tensors

__all__ = [
    "Examples",
    "batches",
    "fingerprint",
    "load",
    "load_partition",
    "load_split",
    "make_partitioner",
    "to_tensors",
]

_HOMES = {
    "Examples": "tensors",
    "batches": "tensors",
    "fingerprint": "tensors",
    "load": "sources",
    "load_partition": "shares",
    "load_split": "shares",
    "make_partitioner": "flower_partitioners",
    "to_tensors": "tensors",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    return imported(__name__, _HOMES, name)
