"""Scalars of NumPy and torch, as the Python values that a contract's annotations name.

``correct / total > 0.9`` is an ``np.bool_`` where one side is of NumPy, and ``loss`` is a tensor
without dimensions. Each has one meaning as a ``bool``, an ``int`` or a ``float``.
"""

from __future__ import annotations

from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any

__all__ = ["with_python_scalars"]

_PYTHON = (str, bytes, bool, int, float, type(None))  # np.float64 and np.str_ are among them

_CONTAINERS = (list, tuple, set, frozenset)


def with_python_scalars(value: Any) -> Any:  # noqa: ANN401
    """Return metadata with Python scalars in place of those of NumPy, torch and the like.

    Parameters
    ----------
    value : Any
        A dataclass instance, a built-in container or a scalar; containers may be nested. A
        scalar is what has no dimensions (``ndim == 0``) and an ``item()``.

    Returns
    -------
    Any
        The converted value; ``value`` is not changed.

    Examples
    --------
    >>> import numpy as np
    >>> with_python_scalars({"converged": np.bool_(True), "losses": [np.float32(0.5)]})
    {'converged': True, 'losses': [0.5]}
    """
    if isinstance(value, _PYTHON):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return _converted_dataclass(value)
    if type(value) is dict:
        return {with_python_scalars(key): with_python_scalars(held) for key, held in value.items()}
    if type(value) in _CONTAINERS:
        return type(value)(with_python_scalars(part) for part in value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    return value


def _converted_dataclass(value: Any) -> Any:  # noqa: ANN401
    """Return a dataclass instance with converted fields; its class is not called again."""
    held = {field.name: getattr(value, field.name) for field in fields(value)}
    converted = {name: with_python_scalars(part) for name, part in held.items()}
    changed = {name: part for name, part in converted.items() if part is not held[name]}
    if not changed:
        return value
    new = copy(value)
    for name, part in changed.items():
        object.__setattr__(new, name, part)  # it may be frozen
    return new
