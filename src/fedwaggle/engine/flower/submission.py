"""An app as ``flwr run`` takes it, and the end of its run as an exception."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import tomli_w

from fedwaggle.engine.flower.commands import COMPLETED, RunStatus
from fedwaggle.errors import ConfigError, EngineError
from fedwaggle.text import printable

__all__ = ["LOG_TAIL_LINES", "ConfigValue", "prepare_app", "refuse_failure"]

ConfigValue = bool | int | float | str

LOG_TAIL_LINES = 30
"""Of a run that was not shown, these lines are shown once it has failed."""

_LEAVE_OUT = shutil.ignore_patterns("outputs", "wandb", "__pycache__", ".*")


def prepare_app(app: Path, config: Mapping[str, ConfigValue], folder: Path) -> tuple[Path, Path]:
    """Return a TOML file of the config, and the folder to submit: the app's, or a copy of it.

    Parameters
    ----------
    app : Path
        The app's folder.
    config : Mapping[str, ConfigValue]
        The run config. Keys that the app's pyproject.toml lacks are added to a copy.
    folder : Path
        Where files may be written.

    Raises
    ------
    ConfigError
        If the app's pyproject.toml cannot be read.
    """
    overrides = folder / "run-config.toml"
    overrides.write_bytes(tomli_w.dumps(dict(config)).encode())
    return overrides, _as_flower_takes_it(app, config, folder / "app" / app.name)


def refuse_failure(status: RunStatus, last_lines: Iterable[str] = ()) -> None:
    """Raise ``EngineError`` with the reason unless a run ended well."""
    if status.status != COMPLETED:
        reason = printable(status.details, limit=2000)
        words = f"run {status.run_id} is {status.status}: {reason}"
        raise EngineError("\n".join([*last_lines, words]))


def _as_flower_takes_it(app: Path, config: Mapping[str, ConfigValue], copy: Path) -> Path:
    """Return an app's folder, or a copy of it where ``flwr run`` would refuse or change it.

    ``flwr run`` takes only those keys of a run config that the app's pyproject.toml has. And a
    section ``[tool.flwr.federations]`` makes it rewrite the user's file and the user's default.
    """
    path = app / "pyproject.toml"
    try:
        pyproject = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path}: expected the pyproject.toml of an app ({error})"]) from error
    flower = pyproject.get("tool", {}).get("flwr", {})
    defaults = flower.get("app", {}).get("config", {})
    # A key with a point is one of a nested table, and those must be in the file anyway.
    added = {key: value for key, value in config.items() if "." not in key and key not in defaults}
    if not added and "federations" not in flower:
        return app
    shutil.copytree(app, copy, ignore=_LEAVE_OUT)
    flower.pop("federations", None)
    flower["app"] = {**flower.get("app", {}), "config": {**added, **defaults}}
    (copy / "pyproject.toml").write_bytes(tomli_w.dumps(pyproject).encode())
    return copy
