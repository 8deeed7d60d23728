"""Pages of the documentation that are drawn from the code: commands, events, codes.

MkDocs calls :func:`on_page_markdown` for each page; a line ``<!-- generated: NAME -->`` in it is
replaced by what the function of that name returns.
"""

from __future__ import annotations

import re
from typing import Any, get_args

from pydantic.fields import FieldInfo

_MARK = re.compile(r"<!-- generated: (?P<name>.+?) -->")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Return a page with its generated parts."""
    return _MARK.sub(lambda mark: _PARTS[mark["name"]](), markdown)


def command_line() -> str:
    """Return each command with its arguments and options."""
    import typer

    from fedwaggle.cli import app

    group = typer.main.get_command(app)
    parts = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if command.hidden:
            continue
        parts += [f"## waggle {name}\n", f"{command.help}\n", "| | |", "|---|---|"]
        for parameter in command.params:
            flags = getattr(parameter, "opts", []) if parameter.param_type_name == "option" else []
            label = ", ".join(f"`{flag}`" for flag in flags) or f"`{parameter.human_readable_name}`"
            parts.append(f"| {label} | {_cell(parameter.help)} |")
        parts.append("")
    return "\n".join(parts)


def events() -> str:
    """Return each kind of event with its fields."""
    from fedwaggle.runs import events as module

    union = get_args(module.Event)[0]
    parts = []
    for kind in get_args(union):
        name = kind.model_fields["event"].default
        parts += [
            f"## {name}\n",
            f"{_paragraph(kind)}\n",
            "| field | type | meaning |",
            "|---|---|---|",
        ]
        parts += [
            f"| `{key}` | {_type_of(field)} | {_cell(field.description)} |"
            for key, field in kind.model_fields.items()
            if key not in ("event", "v", "time")
        ]
        parts.append("")
    return "\n".join(parts)


def codes() -> str:
    """Return the quarantine codes with their meaning."""
    from fedwaggle.strategy.codes import EXPLANATIONS

    rows = [f"| `{code}` | {_cell(text)} |" for code, text in EXPLANATIONS.items()]
    return "\n".join(["| code | meaning |", "|---|---|", *rows])


def _paragraph(kind: type[Any]) -> str:
    return (kind.__doc__ or "").replace(":func:", "").replace("``", "`").strip()


def _type_of(field: FieldInfo) -> str:
    annotation = field.annotation
    text = (
        annotation.__name__
        if isinstance(annotation, type) and not get_args(annotation)
        else str(annotation)
    )
    text = re.sub(r"(?:typing|fedwaggle\.[a-z_.]+|datetime)\.", "", text)
    return f"`{text}`".replace("|", "\\|")


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


_PARTS = {"command line": command_line, "events": events, "codes": codes}
