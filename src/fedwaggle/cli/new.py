"""``waggle new``: a project of one's own, from the quickstart."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from fedwaggle.errors import ConfigError

__all__ = ["create_project", "new"]

TEMPLATE_NAME, TEMPLATE_PACKAGE = "my-federated-project", "my_federated_project"

# Flower's rule for the name of an app, and Python's for the name of a project.
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?")
_LEAVE_OUT = shutil.ignore_patterns("outputs", "wandb", "__pycache__", "*.pyc", ".*", "*.egg-info")


def new(
    name: Annotated[str, typer.Argument(help="Name of the project and of its folder.")],
) -> None:
    """Make a new project: the quickstart under a name of your own, ready to run.

    NAME is that of the project and of its folder: letters, digits and hyphens.
    """
    path = create_project(name, Path.cwd())
    command = f"waggle run {name}"
    typer.echo(
        f"Made {path}\n\n"
        f"  {command}  train it on simulated nodes\n"
        f"  {'waggle report':{len(command)}}  see how it went\n\n"
        f"Then make {name}/{_package_of(name)}/task.py your own."
    )


def create_project(name: str, parent: Path) -> Path:
    """Copy the quickstart as a project of this name; it is whole, or it is not there.

    Parameters
    ----------
    name : str
        Letters, digits and hyphens; at most 32, the first a letter.
    parent : Path
        The folder to make it in.

    Returns
    -------
    Path
        The folder of the project.

    Raises
    ------
    ConfigError
        If the name cannot be used, or there is something of that name already.
    """
    package = _package_of(name)
    _refuse_bad_name(name, package)
    path = parent / name
    if path.exists():
        raise ConfigError([f"{path}: expected nothing there, but it exists; choose another name"])
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=parent) as temporary:
        draft = Path(temporary) / name
        shutil.copytree(_template(), draft, ignore=_LEAVE_OUT)
        (draft / TEMPLATE_PACKAGE).rename(draft / package)
        for file in draft.rglob("*"):
            if file.is_file():
                _rename_in(file, name, package)
        draft.rename(path)
    return path


def _refuse_bad_name(name: str, package: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            [
                f"name: expected letters, digits and hyphens, at most 32, the first a letter and "
                f"the last no hyphen, got {name!r}; choose a name like my-project"
            ]
        )
    if keyword.iskeyword(package) or importlib.util.find_spec(package) is not None:
        raise ConfigError(
            [
                f"name: expected one that is still free, but {package!r} is a module or a word of "
                f"Python; choose a name like {name}-project"
            ]
        )


def _package_of(name: str) -> str:
    return name.lower().replace("-", "_")


def _template() -> Path:
    """Return the quickstart: inside an installed package, or beside the source of a checkout."""
    package = Path(str(files("fedwaggle")))
    installed = package / "_quickstart"
    return installed if installed.is_dir() else package.parents[1] / "quickstart"


def _rename_in(file: Path, name: str, package: str) -> None:
    text = file.read_text(encoding="utf-8")
    renamed = text.replace(TEMPLATE_PACKAGE, package).replace(TEMPLATE_NAME, name)
    file.write_text(renamed, encoding="utf-8")
