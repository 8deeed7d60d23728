"""Random numbers that nobody seeded: the same in every run with one seed."""

from __future__ import annotations

import random
import sys

__all__ = ["seed_random"]


def seed_random(seed: int, number: int) -> None:
    """Seed the generators that a client may draw from without seeding them itself.

    Each message has numbers of its own, whichever worker it comes to. An app that seeds its
    generators is not touched by it.

    Parameters
    ----------
    seed : int
        Of the run.
    number : int
        Of the message; -1 is the server.
    """
    mixed = hash((seed, number)) & 0x7FFF_FFFF_FFFF_FFFF  # ints hash alike in every process
    random.seed(mixed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(mixed & 0xFFFF_FFFF)
    if torch := sys.modules.get("torch"):
        torch.default_generator.manual_seed(mixed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(mixed)
