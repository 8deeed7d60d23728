"""Public names that are imported when they are first used (PEP 562).

torch and Flower take seconds to import, and not every caller needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

__all__ = ["imported"]


def imported(package: str, homes: Mapping[str, str], name: str) -> object:
    """Return a public name of a package, for its module-level ``__getattr__``.

    Parameters
    ----------
    package : str
        The package's ``__name__``.
    homes : Mapping[str, str]
        The module of each public name, below the package.
    name : str
        What is asked for.

    Raises
    ------
    AttributeError
        If the package has no such name.

    Examples
    --------
    >>> imported("fedwaggle", {"derive_seed": "seeds"}, "derive_seed").__name__
    'derive_seed'
    """
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(import_module(f"{package}.{homes[name]}"), name)
