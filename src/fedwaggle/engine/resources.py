"""What Flower calls a simulation's resources, as options of the local engine.

``run_simulation`` takes them as ``backend_config``, and ``flwr run`` as ``--federation-config``.

Reference: https://flower.ai/docs/framework/how-to-run-simulations.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedwaggle.engine.options import cores_here, gpus_here
from fedwaggle.errors import ConfigError

__all__ = ["engine_options", "federation_options"]

_TABLES = {
    "client_resources": {"num_cpus", "num_gpus"},
    "init_args": {"num_cpus", "num_gpus"},
}
_ABOUT_RAY = {"actor", "ignore_reinit_error", "include_dashboard", "log_to_driver", "logging_level"}


def engine_options(backend_config: Mapping[str, Any]) -> dict[str, int]:
    """Return ``workers``, ``gpus`` and ``clients_per_gpu``, as far as they are asked for.

    Parameters
    ----------
    backend_config : Mapping[str, Any]
        ``client_resources`` with ``num_cpus`` and ``num_gpus`` of one client, and ``init_args``
        with what there is of both. Keys that only configure Ray are passed over.

    Raises
    ------
    ConfigError
        If a key is not known, or a number cannot be met. Every mistake is in it.

    Examples
    --------
    >>> engine_options({"client_resources": {"num_cpus": 2}, "init_args": {"num_cpus": 8}})
    {'workers': 4}
    >>> engine_options({"client_resources": {"num_gpus": 0.25}, "init_args": {"num_gpus": 2}})
    {'gpus': 2, 'clients_per_gpu': 4}
    """
    if mistakes := _mistakes(backend_config):
        raise ConfigError(mistakes)
    client = backend_config.get("client_resources", {})
    there = backend_config.get("init_args", {})
    options: dict[str, int] = {}
    if client.get("num_cpus") or there.get("num_cpus"):
        cores = there.get("num_cpus") or cores_here()
        options["workers"] = max(1, int(cores / (client.get("num_cpus") or 1)))
    if share := client.get("num_gpus"):
        options["gpus"] = int(there.get("num_gpus") or max(1, gpus_here()))
        options["clients_per_gpu"] = int(1 / share)
    elif share == 0:
        options["gpus"] = 0
    return options


def federation_options(federation_config: Mapping[str, Any]) -> tuple[dict[str, int], list[str]]:
    """Return a federation config as options of the engine, and the keys that it does not respect.

    Parameters
    ----------
    federation_config : Mapping[str, Any]
        ``num-supernodes``, ``client-resources-num-cpus`` and the others that ``flwr run`` takes.

    Raises
    ------
    ConfigError
        If a number cannot be met. Every mistake is in it.

    Examples
    --------
    >>> federation_options({"num-supernodes": 20, "client-resources-num-gpus": 0.5, "x": 1})
    ({'nodes': 20, 'gpus': 1, 'clients_per_gpu': 2}, ['x'])
    """
    tables: dict[str, dict[str, Any]] = {table: {} for table in _TABLES}
    options: dict[str, int] = {}
    ignored, mistakes = [], []
    for key, value in federation_config.items():
        table, _, name = key.replace("-", "_").partition("_num_")
        if key == "num-supernodes" and type(value) is int and value >= 1:
            options["nodes"] = value
        elif key == "num-supernodes":
            mistakes.append(f"num-supernodes: expected a whole number from 1, got {value!r}")
        elif table in _TABLES and f"num_{name}" in _TABLES[table]:
            tables[table][f"num_{name}"] = value
        else:
            ignored.append(key)
    mistakes += [
        mistake
        for table, values in tables.items()
        for key, value in values.items()
        for mistake in _number_mistakes(_federation_key(table, key), table, key, value)
    ]
    if mistakes:
        raise ConfigError(mistakes)
    return {**options, **engine_options(tables)}, ignored


def _mistakes(backend_config: Mapping[str, Any]) -> list[str]:
    mistakes = []
    for table, values in backend_config.items():
        if table in _ABOUT_RAY:
            continue
        if table not in _TABLES or not isinstance(values, Mapping):
            mistakes.append(
                f"backend_config: expected the tables {' and '.join(_TABLES)}, got {table!r}; "
                "remove it, since the local engine has nothing like it"
            )
            continue
        for key, value in values.items():
            if key in _ABOUT_RAY:
                continue
            if key not in _TABLES[table]:
                mistakes.append(
                    f"backend_config.{table}: expected num_cpus and num_gpus, got {key!r}; remove "
                    "it, since the local engine has nothing like it"
                )
            else:
                mistakes += _number_mistakes(f"backend_config.{table}.{key}", table, key, value)
    return mistakes


def _number_mistakes(name: str, table: str, key: str, value: object) -> list[str]:
    """Return what is wrong with a number of a table, if anything is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [f"{name}: expected a number, got {value!r}; change it"]
    is_share = (table, key) == ("client_resources", "num_gpus")
    if value < 0 or (is_share and value > 1):
        most = " to 1" if is_share else ""
        return [f"{name}: expected a number from 0{most}, got {value}; change it"]
    return []


def _federation_key(table: str, key: str) -> str:
    return f"{table}_{key}".replace("_", "-")
