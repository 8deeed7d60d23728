"""The device that a model is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["best_device"]


def best_device() -> torch.device:
    """Return the first GPU that this process sees if there is one, else the CPU.

    The local engine shows each worker the GPU that it shall use.
    """
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
