"""Resume points: everything that the next round depends on, in one file for each round.

The arrays are safetensors, and the rest is JSON in the same file's metadata, so that one rename
publishes both. Nothing in it is code. A SHA-256 over both shows a damaged file, and the one
before it then serves: the last two are kept.

``best.pth`` may be replaced before the resume point of its round is written. So each resume point
has the best model that it speaks of beside it: a second name of the file, not a copy.

Reference: the safetensors format, https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedwaggle.errors import RunError
from fedwaggle.runs.best_model import BEST
from fedwaggle.runs.events import BestModel
from fedwaggle.runs.files import write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SNAPSHOTS", "Snapshot", "best_beside", "read_latest_snapshot", "write_snapshot"]

SNAPSHOTS = "snapshots"

logger = logging.getLogger("flwr.fedwaggle.runs")

_KEPT = 2
_VERSION = 1
_PAIRS = "complex128"  # safetensors has no dtype for it, so it is written as pairs of float64


@dataclass(frozen=True)
class Snapshot:
    """A run at the end of a round.

    Attributes
    ----------
    server_round : int
        The round.
    arrays : Mapping[str, ndarray]
        Every array of it, by a path such as ``model/conv1.weight``.
    values : Mapping[str, Any]
        Everything else, as JSON can hold it. Of it, ``"model"`` names the model's arrays in their
        order, and ``"best"`` is the best model so far.
    """

    server_round: int
    arrays: Mapping[str, NDArray[Any]]
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> dict[str, NDArray[Any]]:
        """The arrays of the model; safetensors sorts by name, but their order is part of it."""
        return {name: self.arrays[f"model/{name}"] for name in self.values["model"]}

    @property
    def best(self) -> BestModel | None:
        """The best model so far."""
        best = self.values.get("best")
        return BestModel.model_validate(best) if best else None


def write_snapshot(folder: Path, snapshot: Snapshot) -> Path:
    """Write a snapshot into a run's folder, and remove all but it and the one before.

    Later ones are removed as well: they are of an attempt that could not be gone on with.

    Raises
    ------
    OSError
        If it cannot be written; those before it are then as they were.
    """
    home = folder / SNAPSHOTS
    home.mkdir(exist_ok=True)
    path = home / f"round-{snapshot.server_round:06d}.safetensors"
    if snapshot.best is not None:
        _name_twice(folder / BEST, best_beside(folder, snapshot.server_round))
    write_atomic(path, encode(snapshot))
    _prune(home, path)
    return path


def best_beside(folder: Path, server_round: int) -> Path:
    """Return where the best model is that the resume point of a round speaks of."""
    return folder / SNAPSHOTS / f"round-{server_round:06d}.pth"


def read_latest_snapshot(folder: Path) -> Snapshot | None:
    """Return the last whole snapshot of a run, or None if it has none.

    A damaged one is passed over with a warning.
    """
    for path in _files(folder / SNAPSHOTS):
        try:
            return decode(path.read_bytes())
        except (RunError, OSError) as error:
            logger.warning("%s: %s; the one before it is used", path, error)
    return None


def encode(snapshot: Snapshot) -> bytes:
    """Return a snapshot as the bytes of a safetensors file."""
    from safetensors.numpy import save

    arrays = {name: _contiguous(array) for name, array in snapshot.arrays.items()}
    pairs = sorted(name for name, array in arrays.items() if array.dtype == _PAIRS)
    arrays |= {name: arrays[name].reshape(-1).view("float64") for name in pairs}
    shapes = {name: snapshot.arrays[name].shape for name in pairs}
    values = json.dumps(
        {
            "version": _VERSION,
            "round": snapshot.server_round,
            "values": snapshot.values,
            "complex": shapes,
        }
    )
    return save(arrays, {"waggle": values, "sha256": _checksum(arrays, values)})


def decode(data: bytes) -> Snapshot:
    """Return the snapshot that a file holds.

    Raises
    ------
    RunError
        If it is damaged, or of another version.
    """
    import safetensors
    from safetensors.numpy import load

    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        values, checksum = header["waggle"], header["sha256"]
        arrays = load(data)
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise RunError(f"damaged snapshot ({type(error).__name__}: {error})") from error
    if _checksum(arrays, values) != checksum:
        raise RunError("damaged snapshot (its content does not have the hash that it names)")
    state = json.loads(values)
    if state["version"] != _VERSION:
        raise RunError(f"snapshot of version {state['version']}, this library reads {_VERSION}")
    for name, shape in state.get("complex", {}).items():
        arrays[name] = arrays[name].view(_PAIRS).reshape(shape)
    return Snapshot(state["round"], arrays, state["values"])


def _files(home: Path) -> list[Path]:
    """Return the snapshots in a folder, the last one first."""
    return sorted(home.glob("round-*.safetensors"), reverse=True)


def _name_twice(path: Path, name: Path) -> None:
    """Give a file a second name, under which it stays when the first comes to name another."""
    name.unlink(missing_ok=True)
    try:
        os.link(path, name)
    except FileNotFoundError:
        return  # it was removed meanwhile; a resume then reports it
    except OSError:  # a file system without links
        shutil.copyfile(path, name)


def _prune(home: Path, last: Path) -> None:
    """Remove what is not of the last resume point, nor of the one before it."""
    kept = [path.stem for path in _files(home) if path.name <= last.name][:_KEPT]
    files = [*_files(home), *home.glob("round-*.pth")]
    torn = home.glob(".*.tmp")  # of a process that was killed while it wrote
    for path in [*torn, *(path for path in files if path.stem not in kept)]:
        path.unlink(missing_ok=True)


def _contiguous(array: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    # safetensors writes the bytes as they lie, whatever the strides say. A 0-d array stays one.
    return np.ascontiguousarray(array).reshape(array.shape)


def _checksum(arrays: Mapping[str, NDArray[np.generic]], values: str) -> str:
    """Return a hash of names, dtypes, shapes, bytes and values."""
    digest = hashlib.sha256(values.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.data)
    return digest.hexdigest()
