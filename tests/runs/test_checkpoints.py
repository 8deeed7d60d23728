"""Laws of resume points."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedwaggle.errors import RunError
from fedwaggle.runs.best_model import read_model, save_best
from fedwaggle.runs.checkpoints import (
    Snapshot,
    best_beside,
    decode,
    encode,
    read_latest_snapshot,
    write_snapshot,
)
from fedwaggle.runs.events import BestModel


def snapshot(server_round: int) -> Snapshot:
    arrays = {
        "model/w": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
        "model/steps": np.array(7, np.int64),
        "client/3": np.frombuffer(b"state", np.uint8),
    }
    return Snapshot(server_round, arrays, {"lr": 0.1, "nan": float("nan"), "list": [1, "a"]})


def test_what_is_read_is_what_was_written() -> None:
    again = decode(encode(snapshot(4)))
    assert again.server_round == 4
    for name, array in snapshot(4).arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)
        assert again.arrays[name].dtype == array.dtype
    assert repr(again.values) == repr(snapshot(4).values)  # NaN included


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for server_round in range(4):
        write_snapshot(tmp_path, snapshot(server_round))
    assert sorted(os.listdir(tmp_path / "snapshots")) == [
        "round-000002.safetensors",
        "round-000003.safetensors",
    ]
    latest = read_latest_snapshot(tmp_path)
    assert latest is not None
    assert latest.server_round == 3


def test_what_a_killed_writer_left_is_removed_and_never_read(tmp_path: Path) -> None:
    write_snapshot(tmp_path, snapshot(1))
    torn = tmp_path / "snapshots" / ".round-000002.safetensors.17.tmp"
    torn.write_bytes(b"half")
    assert read_latest_snapshot(tmp_path).server_round == 1
    write_snapshot(tmp_path, snapshot(2))
    assert not torn.exists()


def test_a_damaged_last_one_falls_back_to_the_one_before_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_snapshot(tmp_path, snapshot(1))
    path = write_snapshot(tmp_path, snapshot(2))
    path.write_bytes(path.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING, logger="flwr"):
        assert read_latest_snapshot(tmp_path).server_round == 1
    assert "damaged" in caplog.text
    assert "round-000002" in caplog.text


def test_damaged_ones_do_not_stand_in_the_way_of_those_of_a_run_that_began_anew(
    tmp_path: Path,
) -> None:
    """9 and 10 are damaged, so the run begins at 0: its rounds 0 and 1 are the two that stay."""
    for server_round in (9, 10):
        write_snapshot(tmp_path, snapshot(server_round)).write_bytes(b"damaged")
    for server_round in (0, 1):
        write_snapshot(tmp_path, snapshot(server_round))
        assert read_latest_snapshot(tmp_path).server_round == server_round
    assert sorted(os.listdir(tmp_path / "snapshots")) == [
        "round-000000.safetensors",
        "round-000001.safetensors",
    ]


@pytest.mark.parametrize("links", [True, False])
def test_each_has_the_best_model_of_its_time_beside_it(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """best.pth is of round 1, and then of round 3; with or without links in the file system."""
    if not links:
        monkeypatch.setattr(os, "link", _no_links)
    for server_round in range(1, 4):
        best = best_of(1 if server_round < 3 else 3)
        if best.round == server_round:
            save_best(tmp_path, {"w": np.full(2, server_round)}, best)
        kept = Snapshot(server_round, {}, {"best": best.model_dump()})
        write_snapshot(tmp_path, kept)
    assert read_model(best_beside(tmp_path, 2))["w"].tolist() == [1, 1]
    assert read_model(best_beside(tmp_path, 3))["w"].tolist() == [3, 3]
    assert not best_beside(tmp_path, 1).exists()


def best_of(server_round: int) -> BestModel:
    return BestModel(round=server_round, metric="accuracy", value=0.5, sha256="")


def _no_links(source: object, name: object) -> None:
    raise PermissionError("no links here")


def test_without_any_there_is_none(tmp_path: Path) -> None:
    assert read_latest_snapshot(tmp_path) is None


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_damage_goes_unseen(data: st.DataObject) -> None:
    """One changed byte, or a cut at any place, is a RunError, and never another snapshot."""
    good = encode(snapshot(1))
    if data.draw(st.booleans()):
        bad = good[: data.draw(st.integers(0, len(good) - 1))]
    else:
        place = data.draw(st.integers(0, len(good) - 1))
        changed = data.draw(st.integers(1, 255)) ^ good[place]
        bad = good[:place] + bytes([changed]) + good[place + 1 :]
    try:
        read = decode(bad)
    except RunError:
        return
    # A byte of the header's white space may change without changing anything that is said.
    assert encode(read) == good
