"""Random numbers that nobody seeded: the same in every run with one seed."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

__all__ = ["SERVER", "RandomNumbers"]

SERVER = -1  # messages count from 1


class RandomNumbers:
    """Seeds the generators that an app may draw from without seeding them itself.

    Each message has numbers of its own, whichever worker it comes to. An app that seeds its
    generators in each message is not touched by it; what it seeds at import is seeded anew.

    Opened with ``with``, it also seeds torch where that is imported only later. It is not
    imported for this: it takes seconds, and not every app uses it.

    Parameters
    ----------
    seed : int
        Of the run.
    """

    def __init__(self, seed: int) -> None:
        self._run_seed = seed
        self._seed = seed

    def __enter__(self) -> RandomNumbers:
        sys.meta_path.insert(0, self)
        return self

    def __exit__(self, *error: object) -> None:
        sys.meta_path.remove(self)

    def seed_for(self, number: int) -> None:
        """Seed for a message, by the number that counts in the order of sending, or SERVER."""
        mixed = hash((self._run_seed, number))  # ints hash alike in every process
        self._seed = mixed & 0x7FFF_FFFF_FFFF_FFFF
        random.seed(self._seed)
        if numpy := sys.modules.get("numpy"):
            numpy.random.seed(self._seed & 0xFFFF_FFFF)
        if torch := sys.modules.get("torch"):
            _seed_torch(torch, self._seed)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find torch as Python does, and have it seeded when it is imported; find nothing else."""
        spec = PathFinder.find_spec(name, path, target) if name == "torch" else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_seed(module: ModuleType) -> None:
            execute(module)
            _seed_torch(module, self._seed)

        vars(spec.loader)["exec_module"] = execute_and_seed  # of this one loader alone
        return spec


def _seed_torch(torch: ModuleType, seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    if torch.backends.cuda.is_built():  # also where CUDA is initialised only later
        torch.cuda.manual_seed_all(seed)
