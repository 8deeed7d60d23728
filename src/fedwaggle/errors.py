"""Everything that this library raises on purpose.

::

    WaggleError
    ├── ConfigError     a run config or an argument that cannot work, with every mistake in it
    ├── DatasetError    a data set or a partition that cannot be had
    ├── DiskError       a run that ended, but whose last files could not be written
    ├── EngineError     a run that could not start, or that failed
    ├── MetadataError   a client's metadata that was refused: a code, and the paths of bad fields
    ├── NodesError      a round that too few nodes or usable updates came together for
    ├── RunError        a run folder that cannot be made, read or gone on with
    └── TrackerError    a tracker that cannot be used here

Catch ``WaggleError`` for all of them. Each message states what was expected, what came and what to
do.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

__all__ = [
    "ConfigError",
    "DatasetError",
    "DiskError",
    "EngineError",
    "MetadataCode",
    "MetadataError",
    "NodesError",
    "RunError",
    "TrackerError",
    "WaggleError",
]


class WaggleError(Exception):
    """Base of every error that this library raises on purpose."""


class ConfigError(WaggleError):
    """A run config, or an argument, that cannot work.

    Parameters
    ----------
    mistakes : Sequence[str]
        One line for each mistake: the key, what was expected, what came, what to do.

    Attributes
    ----------
    mistakes : tuple[str, ...]
        The same lines.
    """

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


class DatasetError(WaggleError):
    """A data set or a partition that cannot be had; the message lists every way to get it."""


class DiskError(WaggleError):
    """A run that ended, but whose last files could not be written; the message names them."""


class EngineError(WaggleError):
    """A run that could not start, or that failed."""


class MetadataCode(StrEnum):
    """Why metadata was refused."""

    TOO_LARGE = "too-large"
    MALFORMED = "malformed"
    WRONG_SCHEMA = "wrong-schema"
    WRONG_VERSION = "wrong-version"
    INVALID = "invalid"
    WITHHELD = "withheld"


class MetadataError(WaggleError):
    """A client's metadata that was refused.

    Parameters
    ----------
    code : MetadataCode
        The kind of refusal.
    message : str
        What was expected, what came and what to do.
    paths : Sequence[str]
        Dotted paths of all bad fields; empty unless the code is ``invalid`` or ``withheld``.
    """

    def __init__(self, code: MetadataCode, message: str, paths: Sequence[str] = ()) -> None:
        self.code = code
        self.paths = tuple(paths)
        super().__init__(f"[{code}] {message}")


class NodesError(WaggleError):
    """A round that too few nodes, or too few usable updates, came together for."""


class RunError(WaggleError):
    """A run folder that cannot be made, read or gone on with."""


class TrackerError(WaggleError):
    """A tracker that cannot be used here; the message names the extra to install."""
