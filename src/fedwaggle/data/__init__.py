"""Data: sets by name, partitions of them, and tensors to train on.

A set is read and decoded once in a process, kept as one tensor, and a client's partition is a
list of rows in it::

    sources ─ fashion_mnist, idx     a set by its name, from the package or local files
       │    └ hub                    or from the Hugging Face Hub
    image_columns                    its columns, decoded
       │
    loading ─ partitions             a client's rows of it
       │          └ dealing          divided by flwr-datasets' partitioners
    examples                         float32 images and labels, ready for a model

``flower_adapter`` gives the same partitions to code that expects a flwr-datasets partitioner.

Names are imported when they are first used: torch, ``datasets`` and ``flwr_datasets`` take
seconds to import, and not every caller needs them all.

Reference: https://flower.ai/docs/datasets/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedwaggle.lazy import imported

if TYPE_CHECKING:
    from fedwaggle.data.examples import Examples, batches, fingerprint, to_tensors
    from fedwaggle.data.flower_adapter import make_partitioner
    from fedwaggle.data.loading import load_partition, load_split
    from fedwaggle.data.sources import load

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
    "Examples": "examples",
    "batches": "examples",
    "fingerprint": "examples",
    "load": "sources",
    "load_partition": "loading",
    "load_split": "loading",
    "make_partitioner": "flower_adapter",
    "to_tensors": "examples",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    return imported(__name__, _HOMES, name)
