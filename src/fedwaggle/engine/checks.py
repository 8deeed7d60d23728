"""What is known to go wrong before anything starts: values of the run config, and the nodes.

Neither the app nor torch is imported. That an app reads its config with this library is seen in
its sources, and so are the keys that a subclass of ``RunConfig`` gives another meaning.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from fedwaggle.config import mistakes_in, too_many_nodes
from fedwaggle.data.sizes import EMBEDDED_ROWS
from fedwaggle.errors import ConfigError

__all__ = [
    "ConfigValue",
    "check_both",
    "import_folder",
    "mistakes_before_start",
    "reads_run_config",
    "refuse_mistakes",
]

ConfigValue: TypeAlias = bool | int | float | str

A = TypeVar("A")
B = TypeVar("B")


def check_both(first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
    """Call both and return what they return, or raise the mistakes of both as one.

    Raises
    ------
    ConfigError
        If either raised one.
    """
    mistakes: list[str] = []
    results: list[Any] = []
    for check in (first, second):
        try:
            results.append(check())
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    return results[0], results[1]


def refuse_mistakes(
    folder: Path, serverapp: str, config: Mapping[str, ConfigValue], nodes: int
) -> None:
    """Raise a ConfigError if there is a mistake; see :func:`mistakes_before_start`."""
    if mistakes := mistakes_before_start(folder, serverapp, config, nodes):
        raise ConfigError(mistakes)


def mistakes_before_start(
    folder: Path, serverapp: str, config: Mapping[str, ConfigValue], nodes: int | None
) -> list[str]:
    """Return what is wrong with a run config, if its app reads it as a ``RunConfig``.

    Parameters
    ----------
    folder : Path
        The app's folder.
    serverapp : str
        Where its ServerApp is: ``module:attribute``.
    config : Mapping[str, bool | int | float | str]
        The run config.
    nodes : int | None
        How many nodes there will be, if that is known.
    """
    if not reads_run_config(folder, serverapp):
        return []  # the same keys may mean something else
    sources = [text for text in _sources(folder, serverapp) if "fedwaggle" in text]
    own = {name.replace("_", "-") for text in sources for name in _fields_of_subclasses(text)}
    shared = {key: value for key, value in config.items() if key not in own}
    mistakes = mistakes_in(shared)
    if nodes is None:
        return mistakes
    return mistakes + too_many_nodes(shared, nodes) + _too_few_examples(shared, nodes)


def reads_run_config(folder: Path, serverapp: str) -> bool:
    """Return whether an app reads its config with this library, by its sources."""
    return any(
        "fedwaggle" in text and "read_config" in text for text in _sources(folder, serverapp)
    )


def import_folder(folder: Path, reference: str) -> Path:
    """Return where an app's modules are imported from: its folder, or ``src`` in it.

    Parameters
    ----------
    folder : Path
        The app's folder.
    reference : str
        Where one of its apps is: ``module:attribute``.
    """
    name = reference.partition(":")[0].partition(".")[0]
    for place in (folder, folder / "src"):
        if name and ((place / name).is_dir() or (place / f"{name}.py").is_file()):
            return place
    return folder


def _sources(folder: Path, serverapp: str) -> Iterator[str]:
    """Yield the text of the files of the package that holds an app's ServerApp."""
    name = serverapp.partition(":")[0].partition(".")[0]
    folder = import_folder(folder, serverapp)
    files = [folder / f"{name}.py", *(folder / name).rglob("*.py")]
    for file in files:
        if file.is_file():
            yield file.read_text(encoding="utf-8", errors="replace")


def _fields_of_subclasses(text: str) -> Iterator[str]:
    """Yield the names that classes with a base declare."""
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError):
        return  # its import fails, and the error shows where
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef) and node.bases:
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    yield line.target.id


def _too_few_examples(config: Mapping[str, object], nodes: int) -> list[str]:
    """Return a mistake for each split of the data that has fewer examples than there are nodes."""
    rows = EMBEDDED_ROWS.get(str(config.get("dataset", "")), {})
    fixes = {"train": "choose a larger data set", "test": "set fraction-evaluate=0"}
    evaluates = bool(config.get("fraction-evaluate", True))
    return [
        f"nodes: expected at most {count}, the examples of {config['dataset']} to {split}, got "
        f"{nodes}; start with --nodes {count} or fewer, or {fixes[split]}"
        for split, count in rows.items()
        if nodes > count and (split == "train" or evaluates)
    ]
