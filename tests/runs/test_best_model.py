"""Laws of the models on disk."""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from fedwaggle.runs.best_model import (
    holds_best,
    model_sha256,
    read_model,
    remove_best,
    save_best,
    save_final,
)
from fedwaggle.runs.events import BestModel

ARRAYS = {"w": np.array([[1.0, 2.0]], np.float32), "steps": np.array(3, np.int64)}


def best_of(server_round: int) -> BestModel:
    return BestModel(round=server_round, metric="accuracy", value=0.5, sha256=model_sha256(ARRAYS))


def test_a_model_is_loaded_as_data_with_its_dtypes_and_shapes(tmp_path: Path) -> None:
    size = save_best(tmp_path, ARRAYS, best_of(1))
    state = torch.load(tmp_path / "best.pth", weights_only=True)
    assert state["w"].tolist() == [[1.0, 2.0]]
    assert (state["steps"].dtype, state["steps"].shape) == (torch.int64, torch.Size([]))
    assert size == (tmp_path / "best.pth").stat().st_size
    facts = json.loads((tmp_path / "best.json").read_text())
    assert (facts["round"], facts["sha256"]) == (1, model_sha256(ARRAYS))


def test_a_disk_that_is_full_leaves_the_old_model_whole(tmp_path: Path) -> None:
    """Round 2's model of 400 kB does not fit: round 1's model and its facts stay."""
    save_best(tmp_path, ARRAYS, best_of(1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    large = {"w": np.zeros(100_000, np.float32)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"torch\.save|File too large"):
            save_best(tmp_path, large, best_of(2))
        with pytest.raises(OSError, match=r"torch\.save|File too large"):
            save_final(tmp_path, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert sorted(os.listdir(tmp_path)) == ["best.json", "best.pth"]


def test_the_best_model_is_known_by_its_facts_and_its_hash(tmp_path: Path) -> None:
    """Either file alone, of another round or damaged, is not it."""
    assert not holds_best(tmp_path, best_of(1))
    save_best(tmp_path, ARRAYS, best_of(1))
    assert holds_best(tmp_path, best_of(1))
    assert not holds_best(tmp_path, best_of(2))
    assert model_sha256(read_model(tmp_path / "best.pth")) == model_sha256(ARRAYS)
    whole = (tmp_path / "best.pth").read_bytes()
    (tmp_path / "best.pth").write_bytes(whole[:-100])
    assert not holds_best(tmp_path, best_of(1))
    assert read_model(tmp_path / "best.pth") == {}
    remove_best(tmp_path)
    assert os.listdir(tmp_path) == []


def test_the_hash_is_of_names_dtypes_shapes_and_bytes() -> None:
    """Changing any one of the four changes it; memory order does not."""
    base = {"w": np.zeros((2, 3), np.float32)}
    others = [
        {"v": base["w"]},
        {"w": base["w"].astype(np.float64)},
        {"w": base["w"].reshape(3, 2)},
        {"w": base["w"] + 1},
    ]
    assert len({model_sha256(arrays) for arrays in (base, *others)}) == 5
    assert model_sha256({"w": np.asfortranarray(base["w"])}) == model_sha256(base)
