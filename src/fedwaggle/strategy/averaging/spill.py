"""A file for replies that must wait and do not fit in memory.

It has no name: it is gone when the process is, however that ends.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from fedwaggle.errors import RunError
from fedwaggle.strategy.averaging.arrays import Arrays, Template

__all__ = ["Spill"]


class Spill:
    """Replies on disk, one after the other.

    Parameters
    ----------
    template : Template
        What each reply's arrays are.
    folder : Path | None
        Where the file is made; None is the system's folder for temporary files.
    """

    def __init__(self, template: Template, folder: Path | None = None) -> None:
        self._template = template
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._end = 0

    def write(self, arrays: Mapping[str, NDArray[Any]]) -> int:
        """Write a reply and return where it begins.

        Raises
        ------
        OSError
            If there is no room, or no folder to write to. What was there before is whole.
        """
        if self._file is None:
            # Unbuffered: a full disk shows here, and not in a later call or at the end.
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
        begin = self._file.seek(self._end)
        for key in self._template.specs:
            rest = _bytes_of(arrays[key])
            while rest:
                rest = rest[self._file.write(rest) :]
        self._end = self._file.tell()
        return begin

    def read(self, begin: int) -> Arrays:
        """Read the reply that begins at ``begin``.

        Raises
        ------
        RunError
            If it cannot be read back.
        """
        assert self._file is not None, "only what was written is read"  # noqa: S101
        arrays = {}
        try:
            self._file.seek(begin)
            for key, spec in self._template.specs.items():
                arrays[key] = np.empty(spec.shape, spec.dtype)
                _read_into(self._file, _bytes_of(arrays[key]))
        except OSError as error:
            where = self._folder or tempfile.gettempdir()
            raise RunError(
                f"fold-buffer: a reply that waited in {where} cannot be read back ({error}); "
                "resume the run, on another disk or with a larger fold-buffer"
            ) from error
        return arrays

    def close(self) -> None:
        """Give the room back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _read_into(file: IO[bytes], room: memoryview) -> None:
    while room:
        count: int = file.readinto(room)  # type: ignore[attr-defined]  # a raw file has it
        if not count:
            raise OSError("the file is shorter than what was written")
        room = room[count:]
