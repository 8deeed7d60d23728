"""What was asked of a run (``run.json``), and whether it may be resumed with what is asked now.

``run.json`` also states whether the run can be repeated; why it cannot is an event, too.

A resumed run must end with the model of an uninterrupted one. So a config key that decides the
model may not change between the two; a key that decides only where things go or how long a
run is may.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, computed_field

from fedwaggle.config import default_values
from fedwaggle.errors import RunError
from fedwaggle.runs.paths import REQUEST
from fedwaggle.text import printable

__all__ = [
    "CPU_VARIABLES",
    "Request",
    "breaking_changes",
    "changes",
    "code_changes",
    "installed_versions",
    "machine_facts",
    "read_request",
]

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

CPU_VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR")
"""Variables by which torch and its libraries compute with other instructions."""

_PACKAGES = ("fedwaggle", "flwr", "torch", "numpy")


class Request(BaseModel):
    """What was asked of a run."""

    model_config = ConfigDict(frozen=True)

    config: dict[str, Any] = Field(default={}, description="The run config, as Flower gave it.")
    app: str = Field(default="", description="The app's package.")
    seed: int = Field(default=0, description="The seed of the run.")
    engine: str = Field(default="", description="What carries the messages.")
    versions: dict[str, str] = Field(default={}, description="Versions of what it ran on.")
    machine: dict[str, str] = Field(
        default={}, description="What of the machine decides the last digits of a model."
    )
    code: str = Field(default="", description="SHA-256 of the app's Python files together.")
    sources: dict[str, str] = Field(default={}, description="SHA-256 of each of these files.")
    dataset: str = Field(default="", description="Fingerprint of the data that it is tested on.")
    number: int = Field(default=0, description="Its place among the runs of its folder, from 1.")
    forked_from: str = Field(default="", description="Folder of the run that it was forked from.")
    not_repeatable: dict[str, str] = Field(
        default={}, description="Why another run may end with another model, by cause."
    )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def repeatable(self) -> bool:
        """Whether the same request ends with the same model, as far as is known by now."""
        return not self.not_repeatable


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

    A key that is left out has its default.

    Examples
    --------
    >>> breaking_changes({"lr": 0.1, "num-server-rounds": 5}, {"lr": 0.1, "num-server-rounds": 9})
    {}
    >>> breaking_changes({"lr": 0.1}, {"lr": 0.2})
    {'lr': [0.1, 0.2]}
    """
    old, new = ({**default_values(), **config} for config in (old, new))
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


def machine_facts() -> dict[str, str]:
    """Return what of this machine decides the last digits of a model.

    Returns
    -------
    dict[str, str]
        ``cpu``, the instructions that torch computes with, such as ``AVX512`` (the kind of the
        processor before torch is imported), ``threads`` of torch, and the variables that choose
        other instructions, if they are set.
    """
    torch = sys.modules.get("torch")
    found = {"cpu": platform.machine()}
    if torch is not None:
        found = {
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "threads": str(torch.get_num_threads()),
        }
    return found | {name: os.environ[name] for name in CPU_VARIABLES if name in os.environ}


def code_changes(old: Request, new: Request) -> str:
    """Return what changed in an app's code between two requests; empty if nothing did.

    Examples
    --------
    >>> old = Request(code="1", sources={"a.py": "1", "b.py": "1", "c.py": "1"})
    >>> code_changes(old, Request(code="2", sources={"b.py": "2", "c.py": "1", "d.py": "1"}))
    'a.py (removed), b.py, d.py (new)'
    """
    if not (old.code and new.code) or old.code == new.code:
        return ""
    if not (old.sources and new.sources):
        return "which files is not known"
    marks = {(True, False): " (removed)", (False, True): " (new)", (True, True): ""}
    return ", ".join(
        f"{name}{marks[name in old.sources, name in new.sources]}"
        for name in changes(old.sources, new.sources)
    )


def read_request(path: Path) -> Request:
    """Return what was asked of a run.

    Raises
    ------
    RunError
        If there is no folder of a run.
    """
    try:
        return Request.model_validate_json((path / REQUEST).read_bytes())
    except (OSError, ValueError) as error:
        reason = printable(str(error), 200)
        raise RunError(f"{path}: expected the folder of a run, but {reason}") from error
