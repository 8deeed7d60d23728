"""Random numbers that the app does not seed: the same in every run with one seed.

With a seed of the run, each message has numbers of its own. Without one, the engine leaves the
generators as the app left them, with one exception: workers that are copies of one process must
not draw the same numbers unless the app asked for that.
"""

from __future__ import annotations

import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Self

__all__ = ["SERVER", "RandomNumbers", "SeedWatch"]

SERVER = -1  # messages count from 1


class _TorchWatch(ABC):
    """Does something to torch when it is imported, while this is open.

    It is not imported for this: it takes seconds, and not every app uses it.
    """

    def __enter__(self) -> Self:
        sys.meta_path.insert(0, self)
        return self

    def __exit__(self, *error: object) -> None:
        sys.meta_path.remove(self)

    @abstractmethod
    def _torch_was_imported(self, torch: ModuleType) -> None:
        """Do it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find torch as Python does, and note when it is imported; find nothing else."""
        spec = PathFinder.find_spec(name, path, target) if name == "torch" else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_note(module: ModuleType) -> None:
            execute(module)
            self._torch_was_imported(module)

        vars(spec.loader)["exec_module"] = execute_and_note  # of this one loader alone
        return spec


class RandomNumbers(_TorchWatch):
    """Seeds the generators that an app may draw from without seeding them itself.

    Each message has numbers of its own, whichever worker it comes to. An app that seeds its
    generators in each message is not touched by it; what it seeds at import is seeded anew.

    Opened with ``with``, it also seeds torch where that is imported only later.

    Parameters
    ----------
    seed : int
        Of the run.
    """

    def __init__(self, seed: int) -> None:
        self._run_seed = seed
        self._seed = seed

    def seed_for(self, number: int) -> None:
        """Seed for a message, by the number that counts in the order of sending, or SERVER."""
        mixed = hash((self._run_seed, number))  # ints hash alike in every process
        self._seed = mixed & 0x7FFF_FFFF_FFFF_FFFF
        random.seed(self._seed)
        if numpy := sys.modules.get("numpy"):
            numpy.random.seed(self._seed & 0xFFFF_FFFF)
        if torch := sys.modules.get("torch"):
            self._torch_was_imported(torch)

    def _torch_was_imported(self, torch: ModuleType) -> None:
        torch.default_generator.manual_seed(self._seed)
        if torch.backends.cuda.is_built():  # also where CUDA is initialised only later
            torch.cuda.manual_seed_all(self._seed)


class SeedWatch(_TorchWatch):
    """Finds out which generators an app seeds while it is imported.

    Open it around the import, and call ``settle`` in each copy of the process: the generators
    that the app seeded then go on from where they were, as in any process that imports the app;
    the others get fresh numbers.
    """

    def __init__(self) -> None:
        self._seeded: set[str] = set()
        self._first_seed: int | None = None
        self._random_state: tuple[Any, ...] = ()
        self._originals: list[tuple[Any, str, Callable[..., Any]]] = []

    def __enter__(self) -> Self:
        import numpy.random as numpy_random  # Flower needs it in any case

        for module, name in ((random, "seed"), (random, "setstate")):
            self._replace(module, name, "random")
        for module, name in ((numpy_random, "seed"), (numpy_random, "set_state")):
            self._replace(module, name, "numpy")
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for module, name, original in self._originals:
            setattr(module, name, original)
        self._random_state = random.getstate()
        torch = sys.modules.get("torch")
        if torch is not None and torch.initial_seed() != self._first_seed:
            self._seeded.add("torch")

    def settle(self) -> None:
        """Give this process, a copy, the numbers that it would have had with an own import."""
        if "random" in self._seeded:
            random.setstate(self._random_state)  # Python seeds its own anew in each copy
        if "numpy" not in self._seeded:
            sys.modules["numpy"].random.seed()
        if "torch" not in self._seeded and (torch := sys.modules.get("torch")):
            torch.default_generator.seed()

    def _replace(self, module: ModuleType, name: str, generator: str) -> None:
        original = getattr(module, name)

        @wraps(original)
        def noted(*values: object, **named: object) -> object:
            given = [*values, *named.values()]
            if given and given[0] is not None:
                self._seeded.add(generator)
            else:  # seeded from the system: as good as not seeded
                self._seeded.discard(generator)
            return original(*values, **named)

        self._originals.append((module, name, original))
        setattr(module, name, noted)

    def _torch_was_imported(self, torch: ModuleType) -> None:
        self._first_seed = torch.initial_seed()
