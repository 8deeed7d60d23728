"""Names that columns of a data set have, by what they hold."""

from __future__ import annotations

__all__ = ["IMAGE_COLUMNS", "LABEL_COLUMNS"]

IMAGE_COLUMNS = ("image", "img", "images", "pixel_values")
LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "character", "class", "y")
"""The first one that is there counts."""
