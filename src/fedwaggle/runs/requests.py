"""What was asked of a run (``run.json``), and whether it may go on with what is asked now.

A resumed run must end with the model of an uninterrupted one. So a config key that decides the
model may not change between the two; a key that decides only where things go or how long a
run is may. The comparison is pure; reading and writing the file is in ``folder``.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Request", "breaking_changes", "changes", "code_hash", "installed_versions"]

_FREE_KEYS = {
    "num-server-rounds",
    "round-timeout",
    "node-timeout",
    "fold-buffer",
    "metadata-budget",
    "tracker",
    "wandb-project",
    "outputs",
    "run-name",
    "resume",
    "fork",
    "data-dir",
}
"""Keys that may change when a run goes on: none of them decides what a round computes."""

_PACKAGES = ("fedwaggle", "flwr", "torch", "numpy")


class Request(BaseModel):
    """What was asked of a run."""

    model_config = ConfigDict(frozen=True)

    config: dict[str, Any] = Field(default={}, description="The run config, as Flower gave it.")
    seed: int = Field(default=0, description="The seed of the run.")
    engine: str = Field(default="", description="What carries the messages.")
    versions: dict[str, str] = Field(default={}, description="Versions of what it ran on.")
    code: str = Field(default="", description="SHA-256 of the app's Python files.")
    dataset: str = Field(default="", description="Fingerprint of the data that it is tested on.")
    forked_from: str = Field(default="", description="Folder of the run that it was forked from.")


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the keys whose values differ, each with the value before and the value now.

    Examples
    --------
    >>> changes({"lr": 0.1, "seed": 0}, {"lr": 0.2, "seed": 0})
    {'lr': [0.1, 0.2]}
    """
    keys = sorted({*old, *new})
    return {key: [old.get(key), new.get(key)] for key in keys if old.get(key) != new.get(key)}


def breaking_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return those changes after which the run could not end as an uninterrupted one does.

    Examples
    --------
    >>> breaking_changes({"lr": 0.1, "num-server-rounds": 5}, {"lr": 0.1, "num-server-rounds": 9})
    {}
    >>> breaking_changes({"lr": 0.1}, {"lr": 0.2})
    {'lr': [0.1, 0.2]}
    """
    free = set(_FREE_KEYS)
    if "cosine" in (old.get("lr-schedule"), new.get("lr-schedule")):
        free.discard("num-server-rounds")  # a cosine's rate depends on how long the run is
    return {key: values for key, values in changes(old, new).items() if key not in free}


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of what a run's numbers depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def code_hash(files: Iterable[Path]) -> str:
    """Return the SHA-256 of source files: their names and contents, in the order of names."""
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.name):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
