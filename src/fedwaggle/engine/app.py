"""A Flower app folder, read: which two objects make it up, and the config that it runs with.

The folder's ``pyproject.toml`` states both, as Flower defines them: ``[tool.flwr.app.components]``
names the ServerApp and the ClientApp as ``module:attribute``, ``[tool.flwr.app.config]`` holds
the defaults of the run config. What a user overrides is checked here, key and type, so that a
typing mistake is known before anything starts; and so is a bad value, in an app that reads its
config with this library. Neither Flower nor the app is imported.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

from fedwaggle.config import default_values
from fedwaggle.engine.checks import (
    ConfigValue,
    import_folder,
    mistakes_before_start,
    reads_run_config,
)
from fedwaggle.errors import ConfigError

__all__ = ["App", "ConfigValue", "read_app", "read_defaults", "read_federation"]

_FIX_FOLDER = "give the folder of a Flower app, the one that `flwr run` takes"


@dataclass(frozen=True)
class App:
    """A Flower app folder and the run config to run it with.

    Attributes
    ----------
    path : Path
        The folder, absolute. Modules of the app are imported from here.
    name, version, publisher : str
        From ``[project]`` and ``[tool.flwr.app]``.
    serverapp, clientapp : str
        Where the two apps are: ``module:attribute``.
    config : Mapping[str, bool | int | float | str]
        The run config: the folder's defaults with the overrides in their place. Nested tables
        are flattened with dots.
    """

    path: Path
    name: str
    version: str
    publisher: str
    serverapp: str
    clientapp: str
    config: Mapping[str, ConfigValue]

    @property
    def import_path(self) -> Path:
        """Where its modules are imported from: the folder, or ``src`` in it for a src layout."""
        return import_folder(self.path, self.serverapp)

    @property
    def fab_id(self) -> str:
        """The app's id, as Flower makes it: ``publisher/name``."""
        return f"{self.publisher}/{self.name}"

    @property
    def references(self) -> tuple[str, str]:
        """Where the two apps are."""
        return self.serverapp, self.clientapp


def read_defaults(path: str | Path) -> dict[str, ConfigValue]:
    """Return the run config that stands in an app's folder; beneath it, this library's defaults.

    The latter only if the app reads its config with this library.

    Raises
    ------
    ConfigError
        If there is no ``pyproject.toml`` that can be read.
    """
    folder = Path(path).expanduser().absolute()
    app_table = _table(_read_pyproject(folder), "tool", "flwr", "app")
    return {**_known_defaults(folder, app_table), **_flatten(_table(app_table, "config"))[0]}


def read_federation(path: str | Path) -> dict[str, Any]:
    """Return the options of an app's default federation, under the keys that ``flwr run`` takes.

    Raises
    ------
    ConfigError
        If there is no ``pyproject.toml`` that can be read.
    """
    pyproject = _read_pyproject(Path(path).expanduser().absolute())
    federations = _table(pyproject, "tool", "flwr", "federations")
    options = _table(federations, str(federations.get("default", "")), "options")
    flat = _leaves(options, "")
    return {key.removeprefix("backend.").replace(".", "-"): value for key, value in flat}


def read_app(
    path: str | Path, overrides: Mapping[str, Any] | None = None, *, nodes: int | None = None
) -> App:
    """Read a Flower app folder.

    Parameters
    ----------
    path : str | Path
        The folder that holds the app's ``pyproject.toml``.
    overrides : Mapping[str, Any] | None
        Values to use in place of the folder's. Each key must be one of the folder's, or of
        ``RunConfig`` if the app reads its config as one, and each value of its default's type; a
        whole number is taken for a float, too.
    nodes : int | None
        How many nodes there will be, if that is known: a config that waits for more is a mistake.

    Returns
    -------
    App
        Components and merged config.

    Raises
    ------
    ConfigError
        If the folder is not a Flower app, an override cannot be used, or the app reads a
        ``RunConfig`` and one of its keys has a bad value. Every mistake is in it; for an unknown
        key also the nearest one that there is.
    """
    folder = Path(path).expanduser().absolute()
    pyproject = _read_pyproject(folder)
    app_table = _table(pyproject, "tool", "flwr", "app")
    components = _table(app_table, "components")
    defaults, mistakes = _flatten(_table(app_table, "config"))
    mistakes += [
        f'{folder / "pyproject.toml"}: expected {kind} = "module:attribute" in '
        f"[tool.flwr.app.components], got {short_repr(components.get(kind))}; {_FIX_FOLDER}"
        for kind in ("serverapp", "clientapp")
        if not _is_reference(components.get(kind))
    ]
    known = {**_known_defaults(folder, app_table), **defaults}
    config = _merge(defaults, known, overrides or {}, mistakes)
    serverapp = str(components.get("serverapp", ""))
    mistakes += mistakes_before_start(folder, serverapp, config, nodes)
    if mistakes:
        raise ConfigError(mistakes)
    project = _table(pyproject, "project")
    return App(
        path=folder,
        name=str(project.get("name", folder.name)),
        version=str(project.get("version", "")),
        publisher=str(app_table.get("publisher", "")),
        serverapp=components["serverapp"],
        clientapp=components["clientapp"],
        config=config,
    )


def _known_defaults(folder: Path, app_table: Mapping[str, Any]) -> dict[str, ConfigValue]:
    """Return the defaults of the keys that an app knows without naming them in its folder."""
    serverapp = str(_table(app_table, "components").get("serverapp", ""))
    return default_values() if reads_run_config(folder, serverapp) else {}


def _read_pyproject(folder: Path) -> dict[str, Any]:
    file = folder / "pyproject.toml"
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            [f"{file}: expected an app's pyproject.toml, but {error.strerror}; {_FIX_FOLDER}"]
        ) from error
    except ValueError as error:
        raise ConfigError([f"{file}: expected TOML, but {error}; correct that line"]) from error


def _table(table: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """Return a nested table, or an empty one where there is none."""
    for key in keys:
        inner = table.get(key)
        table = inner if isinstance(inner, dict) else {}
    return table


def _is_reference(text: object) -> bool:
    """Whether ``text`` reads as ``module:attribute``."""
    if not isinstance(text, str):
        return False
    module, _, attribute = text.partition(":")
    return bool(module and attribute)


def _flatten(table: Mapping[str, Any]) -> tuple[dict[str, ConfigValue], list[str]]:
    """Join nested keys with dots, as Flower does; and name what Flower's config cannot hold."""
    flat: dict[str, ConfigValue] = {}
    mistakes: list[str] = []
    for key, value in _leaves(table, ""):
        if isinstance(value, ConfigValue):
            flat[key] = value
        else:
            mistakes.append(
                f"[tool.flwr.app.config] {key}: expected bool, int, float or str, "
                f"got {type(value).__name__}; write it as text and read it in the app"
            )
    return flat, mistakes


def _leaves(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _merge(
    defaults: Mapping[str, ConfigValue],
    known: Mapping[str, ConfigValue],
    overrides: Mapping[str, Any],
    mistakes: list[str],
) -> dict[str, ConfigValue]:
    """Return defaults with overrides of known keys; add a line to ``mistakes`` for a bad one."""
    config = dict(defaults)
    for key, value in _leaves(overrides, ""):
        if key not in known:
            mistakes.append(_unknown_key(key, known))
        elif isinstance(known[key], float) and type(value) is int:
            config[key] = float(value)
        elif type(value) is type(known[key]):
            config[key] = value
        else:
            mistakes.append(
                f"{key}: expected {type(known[key]).__name__}, got {type(value).__name__} "
                f"{short_repr(value)}; the app's default is {short_repr(known[key])}"
            )
    return config


def _unknown_key(key: str, known: Mapping[str, ConfigValue]) -> str:
    nearest = get_close_matches(key, known, n=1)
    fix = f"did you mean {nearest[0]}?" if nearest else f"it has {', '.join(known) or 'none'}"
    return f"{key}: expected a key of the app's [tool.flwr.app.config], got an unknown one; {fix}"
