"""``waggle config``: the keys of the run config, with type, default and meaning."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from fedwaggle.errors import ConfigError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

__all__ = ["allowed_values", "config"]

_LIMITS = {"ge": "from", "gt": "above", "le": "up to", "min_length": "not empty"}
_KINDS = {int: "whole number", float: "number", str: "text", bool: "`true`, `false`"}


def config(
    key: Annotated[
        str | None, typer.Argument(help="A key, or a part of one; all keys if left out.")
    ] = None,
) -> None:
    """List the keys of the run config, with their values, defaults and meaning.

    `waggle run --set KEY=VALUE` sets one for a run; [tool.flwr.app.config] in an app's
    pyproject.toml sets it for all of its runs.
    """
    from rich.console import Console
    from rich.table import Table

    from fedwaggle.config import RunConfig

    fields = {str(field.alias): field for field in RunConfig.model_fields.values()}
    shown = {alias: field for alias, field in fields.items() if not key or key in alias}
    if not shown:
        near = ", ".join(get_close_matches(str(key), fields, n=3, cutoff=0.3)) or "waggle config"
        raise ConfigError([f"key: expected one of the run config, got {key!r}; see {near}"])
    table = Table(box=None, header_style="bold")
    table.add_column("key", no_wrap=True, style="bold")
    table.add_column("default", overflow="fold", max_width=20)
    table.add_column("values", overflow="fold", max_width=24)
    table.add_column("meaning", overflow="fold")
    for alias, field in shown.items():
        plain = (allowed_values(field), field.description or "")
        table.add_row(alias, json.dumps(field.default), *(text.replace("`", "") for text in plain))
    Console(highlight=False, markup=False).print(table)


def allowed_values(field: FieldInfo) -> str:
    """Return what a field of the config may hold, in words of Markdown.

    Examples
    --------
    >>> from fedwaggle.config import RunConfig
    >>> allowed_values(RunConfig.model_fields["alpha"])
    'number above 0'
    """
    if choices := get_args(field.annotation):
        return ", ".join(f'`"{choice}"`' for choice in choices)
    limits = [
        word if name == "min_length" else f"{word} {getattr(limit, name)}"
        for limit in field.metadata
        for name, word in _LIMITS.items()
        if hasattr(limit, name)
    ]
    return " ".join([_KINDS[field.annotation], *limits])  # type: ignore[index]
