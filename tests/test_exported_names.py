"""The names that packages export: complete, sorted, and imported only when they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

PACKAGES = ["fedwaggle", "fedwaggle.data", "fedwaggle.runs", "fedwaggle.runs.report"]


def names_for_type_checkers(package: str) -> list[str]:
    """Return what a package imports under ``if TYPE_CHECKING``."""
    tree = ast.parse(Path(str(import_module(package).__file__)).read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in blocks[0].body if isinstance(node, ast.ImportFrom)]
    return [alias.name for node in imports for alias in node.names]


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_exported_is_complete_and_sorted(package: str) -> None:
    """One list for users, one for type checkers, one for the import on first use: the same."""
    module = import_module(package)
    assert module.__all__ == sorted(set(module.__all__))
    assert sorted(names_for_type_checkers(package)) == module.__all__
    assert list(module._HOMES) == module.__all__


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_is_there(package: str) -> None:
    """Each comes from a module that exports it as well; another name is an AttributeError."""
    module = import_module(package)
    for name, home in module._HOMES.items():
        assert getattr(module, name) is getattr(import_module(f"{package}.{home}"), name)
        assert name in import_module(f"{package}.{home}").__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_every_error_of_the_library_is_exported() -> None:
    """Whatever ``fedwaggle.errors`` has can be caught by a name of ``fedwaggle``."""
    import fedwaggle
    from fedwaggle import errors

    assert set(errors.__all__) <= set(fedwaggle.__all__)
    assert set(errors.__all__) <= set(dir(fedwaggle))


@pytest.mark.parametrize(
    "statement",
    [
        "import fedwaggle, fedwaggle.data, fedwaggle.runs",
        "from fedwaggle import ConfigError, RunConfig, pack, read_config, step_decay, unpack",
        "import fedwaggle.convergence, fedwaggle.identity, fedwaggle.seeds",
    ],
)
def test_what_needs_neither_torch_nor_flower_imports_neither(statement: str) -> None:
    """``waggle report`` and ``--help`` must not wait seconds for what they do not use."""
    code = f"{statement}; import sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"torch", "ray", "flwr", "wandb", "numpy", "datasets", "flwr_datasets", "pyarrow"}
    assert heavy.isdisjoint(loaded)
