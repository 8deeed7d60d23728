"""The metadata contract: a dataclass, as bytes in a Flower record, and the same dataclass again.

``contract`` packs and unpacks; ``scalars`` converts what NumPy and torch return; ``refusals`` turns
pydantic's errors into one that is safe to show;
``refusal_costs`` refuses a payload whose errors alone would take too much memory.
"""

from __future__ import annotations

from fedwaggle.metadata.contract import (
    DEFAULT_MAX_BYTES,
    PICKLE_WARNING,
    Codec,
    pack,
    schema_of,
    unpack,
)

__all__ = ["DEFAULT_MAX_BYTES", "PICKLE_WARNING", "Codec", "pack", "schema_of", "unpack"]
