"""What draws random numbers without being seeded draws those of the message at hand."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
import torch

from fedwaggle.engine.local.seeding import SERVER, RandomNumbers


def draw() -> list[float]:
    return [random.random(), float(np.random.rand()), torch.rand(()).item()]


def test_each_message_has_numbers_of_its_own_and_has_them_again() -> None:
    numbers = RandomNumbers(5)
    drawn = {}
    for number in (SERVER, 1, 2):
        numbers.seed_for(number)
        drawn[number] = draw()
    assert len({value for values in drawn.values() for value in values}) == 9
    numbers.seed_for(1)
    assert draw() == drawn[1]
    RandomNumbers(6).seed_for(1)
    assert draw() != drawn[1]


def test_cuda_is_seeded_before_it_is_initialised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch keeps the seed until then; asked here of a torch that may not have CUDA."""
    seeds: list[int] = []
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    RandomNumbers(5).seed_for(1)
    assert seeds == [torch.initial_seed()]


def test_looking_for_torch_changes_nothing_and_ends_with_the_run() -> None:
    before = list(sys.meta_path)
    with RandomNumbers(5) as numbers:
        assert numbers.find_spec("json", None) is None
        spec = numbers.find_spec("torch", None)
        assert spec is not None
        assert spec.origin == torch.__file__
    assert sys.meta_path == before
