"""Resume points: everything that the next round depends on, in one file for each round.

The arrays are safetensors, and the rest is JSON in the same file's metadata, so that one rename
publishes both. Nothing in it is code. A SHA-256 over both tells a damaged file, and the one
before it then serves: the last two are kept.

Reference: the safetensors format, https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedwaggle.errors import RunError
from fedwaggle.runs.files import write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SNAPSHOTS", "Snapshot", "read_latest_snapshot", "write_snapshot"]

SNAPSHOTS = "snapshots"

logger = logging.getLogger("flwr.fedwaggle.runs")

_KEPT = 2
_VERSION = 1


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
        Everything else, as JSON can hold it.
    """

    server_round: int
    arrays: Mapping[str, NDArray[Any]]
    values: Mapping[str, Any] = field(default_factory=dict)


def write_snapshot(folder: Path, snapshot: Snapshot) -> Path:
    """Write a snapshot into a run's folder, and remove all but the last two.

    Raises
    ------
    OSError
        If it cannot be written; those before it are then as they were.
    """
    home = folder / SNAPSHOTS
    home.mkdir(exist_ok=True)
    path = home / f"round-{snapshot.server_round:06d}.safetensors"
    write_atomic(path, encode(snapshot))
    for old in _files(home)[_KEPT:]:
        old.unlink(missing_ok=True)
    for torn in home.glob(".*.tmp"):  # of a process that was killed while it wrote
        torn.unlink(missing_ok=True)
    return path


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
    values = json.dumps(
        {"version": _VERSION, "round": snapshot.server_round, "values": snapshot.values}
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
    return Snapshot(state["round"], arrays, state["values"])


def _files(home: Path) -> list[Path]:
    """Return the snapshots in a folder, the last one first."""
    return sorted(home.glob("round-*.safetensors"), reverse=True)


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
