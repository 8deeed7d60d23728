"""Seeds: one stream for each purpose, the same on every machine and in every process."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from fedwaggle.seeds import derive_seed, seed_everything


@pytest.fixture
def torch_as_it_was() -> Iterator[None]:
    """Give torch back its threads and its freedom."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


def test_a_seed_is_what_it_always_was() -> None:
    """The value is part of the contract: another one would change every run."""
    assert derive_seed(0, "train", 1, "3") == 6817097607242235862


def test_purposes_never_share_a_stream() -> None:
    """Other words, other types, another order, another grouping: another seed."""
    purposes = [("train", 1), ("train", "1"), (1, "train"), ("train1",), ("tr", "ain", 1), ()]
    seeds = {derive_seed(0, *purpose) for purpose in purposes} | {derive_seed(1, "train", 1)}
    assert len(seeds) == len(purposes) + 1
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_seed_does_not_depend_on_the_process() -> None:
    """Two processes with other string hashes derive the same seed."""
    code = "from fedwaggle.seeds import derive_seed; print(derive_seed(7, 'train', 2, 'a'))"
    for hash_seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(run.stdout) == derive_seed(7, "train", 2, "a")


@pytest.mark.usefixtures("torch_as_it_was")
def test_everything_that_draws_is_seeded() -> None:
    """Python, NumPy and torch draw the same again; another seed draws something else."""

    def draw(seed: int) -> tuple[float, float, float]:
        seed_everything(seed)
        return random.random(), float(np.random.random()), float(torch.rand(()))

    largest = 2**63 - 1  # more than NumPy's global generator takes
    assert draw(largest) == draw(largest)
    assert all(a != b for a, b in zip(draw(1), draw(2), strict=True))


@pytest.mark.usefixtures("torch_as_it_was")
def test_torch_computes_in_one_order_or_not_at_all() -> None:
    """One thread, and deterministic algorithms that raise where there is none."""
    seed_everything(0)
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
