"""How many examples the embedded data sets have, known without reading them."""

from __future__ import annotations

__all__ = ["EMBEDDED_ROWS"]

EMBEDDED_ROWS = {"fashion-mnist-mini": {"train": 6_000, "test": 1_000}}
"""Name of a data set to split to number of examples."""
