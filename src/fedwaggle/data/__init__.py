"""Data: sets by name, partitions of them, and tensors to train on.

What an app's ``load_data`` returns is converted once in a process, and a client's partition is a
list of rows in it::

    sources ─ fashion_mnist, idx     a set by its name, from the package or local files
            └ hub                    or from the Hugging Face Hub
    conversion ─ image_columns       what load_data returns, as tensors where it can be
       │
    loading ─ partitioning           a node's rows of it, by flwr-datasets' partitioners
       │
    examples                         features and labels in batches, ready for a model

Names are imported when they are first used: torch, ``datasets`` and ``flwr_datasets`` take
seconds to import, and not every caller needs them all.

Reference: https://flower.ai/docs/datasets/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedwaggle.lazy import imported

if TYPE_CHECKING:
    from fedwaggle.data.conversion import to_examples
    from fedwaggle.data.examples import Examples, TensorExamples, fingerprint
    from fedwaggle.data.loading import load_examples
    from fedwaggle.data.partitioning.flower_adapter import make_partitioner
    from fedwaggle.data.sources import load, load_images

__all__ = [
    "Examples",
    "TensorExamples",
    "fingerprint",
    "load",
    "load_examples",
    "load_images",
    "make_partitioner",
    "to_examples",
]

_HOMES = {
    "Examples": "examples",
    "TensorExamples": "examples",
    "fingerprint": "examples",
    "load": "sources",
    "load_examples": "loading",
    "load_images": "sources",
    "make_partitioner": "partitioning.flower_adapter",
    "to_examples": "conversion",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    return imported(__name__, _HOMES, name)
