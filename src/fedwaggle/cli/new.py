"""``waggle new``: a project of one's own, from a template.

Every template is the quickstart with some of its files replaced, such as ``task.py``, and with the
README, the tests and the .gitignore that all projects have.
"""

from __future__ import annotations

import importlib.util
import json
import keyword
import re
import shutil
import tempfile
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from fedwaggle.errors import ConfigError

__all__ = ["create_project", "new"]

TEMPLATE_NAME, TEMPLATE_PACKAGE = "my-federated-project", "my_federated_project"

# Flower's rule for the name of an app, and Python's for the name of a project.
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?")
_LEAVE_OUT = shutil.ignore_patterns("outputs", "wandb", "__pycache__", "*.pyc", ".*", "*.egg-info")
_OF_ALL = "all"  # the folder of what every project has


def _folder(name: str) -> Path:
    """Return the quickstart or the templates: in an installed package, or in a checkout."""
    package = Path(str(files("fedwaggle")))
    installed = package / f"_{name}"
    return installed if installed.is_dir() else package.parents[1] / name


def _templates() -> list[str]:
    return sorted(path.parent.name for path in _folder("templates").glob("*/config.toml"))


def new(
    name: Annotated[
        str,
        typer.Argument(help="Name of the project and of its folder: letters, digits and hyphens."),
    ],
    template: Annotated[
        str,
        typer.Option(
            "--template",
            "-t",
            help=f"What to begin with: {', '.join(_templates())}.",
        ),
    ] = "vision",
) -> None:
    """Make a new project from a template, under a name of your own, ready to run."""
    path = create_project(name, Path.cwd(), template)
    needed = _settings_of(template)["dependencies"]
    command = f"waggle run {name}"
    install = f"  pip install {' '.join(needed)}  # what it needs\n"
    typer.echo(
        f"Made {path}\n\n"
        f"{install if needed else ''}"
        f"  {command}  train it on simulated nodes\n"
        f"  {'waggle report':{len(command)}}  see how it went\n\n"
        f"Then make {name}/{_package_of(name)}/task.py your own."
    )


def create_project(name: str, parent: Path, template: str = "vision") -> Path:
    """Make a project of this name from a template; it is whole, or it is not there.

    Parameters
    ----------
    name : str
        Letters, digits and hyphens; at most 32, the first a letter.
    parent : Path
        The folder to make it in.
    template : str (default: "vision")
        The name of a template.

    Returns
    -------
    Path
        The folder of the project.

    Raises
    ------
    ConfigError
        If the name cannot be used, there is something of that name already, or there is no such
        template.
    """
    package = _package_of(name)
    _refuse_bad_name(name, package)
    _refuse_unknown_template(template)
    path = parent / name
    if path.exists():
        raise ConfigError([f"{path}: expected nothing there, but it exists; choose another name"])
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=parent) as temporary:
        draft = Path(temporary) / name
        shutil.copytree(_folder("quickstart"), draft, ignore=_LEAVE_OUT)
        _lay_over(draft, template)
        (draft / TEMPLATE_PACKAGE).rename(draft / package)
        for file in draft.rglob("*"):
            if file.is_file():
                _rename_in(file, name, package)
        draft.rename(path)
    return path


def _lay_over(draft: Path, template: str) -> None:
    """Put the files of a template, and those of all projects, over the quickstart's."""
    settings, source = _settings_of(template), _folder("templates")
    shutil.copytree(source / _OF_ALL, draft, dirs_exist_ok=True, ignore=_LEAVE_OUT)
    (draft / "gitignore").rename(draft / ".gitignore")
    own = source / template / TEMPLATE_PACKAGE
    if own.is_dir():
        shutil.copytree(own, draft / TEMPLATE_PACKAGE, dirs_exist_ok=True, ignore=_LEAVE_OUT)
    readme = draft / "README.md"
    needed = " ".join(["fedwaggle", *settings["dependencies"]])
    text = readme.read_text(encoding="utf-8").replace("DESCRIPTION", settings["description"])
    text = text.replace("DEPENDENCIES", needed)
    about = (source / template / "README.md").read_text(encoding="utf-8")
    readme.write_text(text.replace("ABOUT", about), encoding="utf-8")
    pyproject = draft / "pyproject.toml"
    written = _own_pyproject(pyproject.read_text(encoding="utf-8"), settings)
    pyproject.write_text(written, encoding="utf-8")


def _own_pyproject(text: str, settings: dict[str, Any]) -> str:
    """Return the quickstart's pyproject.toml with a template's settings, and no licence of ours.

    The text is edited, so that its comments stay.
    """
    text = re.sub(r"^license = .*\n", "", text, flags=re.MULTILINE)
    text = _with_value(text, "description", settings["description"])
    text = _with_value(text, "publisher", "your-name")
    if needed := settings["dependencies"]:
        extra = f"[project.optional-dependencies]\ntask = {json.dumps(needed)}\n\n"
        text = text.replace("[tool.hatch", f"{extra}[tool.hatch", 1)
    for key, value in settings["config"].items():
        text = _with_value(text, key, value)
    return text


def _with_value(text: str, key: str, value: str | float) -> str:
    """Return a TOML text in which a key has a value; a new key is added at the end."""
    line = f"{key} = {json.dumps(value)}"  # JSON writes these types as TOML does
    found = re.compile(rf"^{re.escape(key)} = .*$", flags=re.MULTILINE)
    return found.sub(lambda _: line, text, count=1) if found.search(text) else f"{text}{line}\n"


def _settings_of(template: str) -> dict[str, Any]:
    """Return a template's description, dependencies and keys of the run config."""
    text = (_folder("templates") / template / "config.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _refuse_unknown_template(template: str) -> None:
    known = _templates()
    if template not in known:
        raise ConfigError(
            [f"template: expected one of {', '.join(known)}, got {template!r}; choose one of them"]
        )


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


def _rename_in(file: Path, name: str, package: str) -> None:
    text = file.read_text(encoding="utf-8")
    renamed = text.replace(TEMPLATE_PACKAGE, package).replace(TEMPLATE_NAME, name)
    file.write_text(renamed, encoding="utf-8")
