"""Seeds derived from one seed, so that every random choice of a run has its own, fixed stream.

The seed of a choice is a keyed hash of what the choice is for: it depends on nothing that
happened before it. Two purposes never share a stream, and round 40 draws the same numbers
whether or not rounds 1 to 39 ran in this process.

Reference: BLAKE2 as a keyed hash, RFC 7693.
"""

from __future__ import annotations

import hashlib

__all__ = ["derive_seed", "seed_everything"]

_KEY_BYTES = 64  # the longest key that BLAKE2b takes


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return the seed of one random choice of a run.

    Parameters
    ----------
    seed : int
        The seed of the whole run.
    *purpose : str | int
        What the choice is for, for example ``"train", server_round, client``.

    Returns
    -------
    int
        In [0, 2**63), as ``torch.Generator.manual_seed`` takes it.

    Examples
    --------
    >>> derive_seed(0, "train", 1, "3") == derive_seed(0, "train", 1, "3")
    True
    >>> derive_seed(0, "train", 1, "3") == derive_seed(0, "train", 2, "3")
    False
    """
    # repr keeps ("1", 1) apart from (1, "1"), and ("a", "b") from ("ab",)
    digest = hashlib.blake2b(
        repr(purpose).encode(), key=str(seed).encode()[:_KEY_BYTES], digest_size=8
    ).digest()
    return int.from_bytes(digest, "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, and let torch compute the same bits every time.

    Torch uses one thread afterwards: sums then have one order, and an engine runs as many
    clients side by side as there are cores. An operation that has no deterministic form raises
    ``RuntimeError`` when it is used, rather than give other bits the next time.

    Do not call it in a process that draws noise for privacy from these generators: who knows
    the seed can take the noise off again.

    Parameters
    ----------
    seed : int
        As :func:`derive_seed` returns it.

    References
    ----------
    PyTorch, "Reproducibility": https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    import os
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # what libraries draw from without being asked
    torch.manual_seed(seed)
    # Torch refuses matrix products on CUDA without it; a choice of the user's goes first.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The same switch as use_deterministic_algorithms(True), which also imports torch's compiler:
    # 3 s of every process, for models that are not compiled.
    torch.set_deterministic_debug_mode("error")
    torch.set_num_threads(1)
