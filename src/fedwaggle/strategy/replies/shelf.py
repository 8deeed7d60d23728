"""The metadata of a round, within a budget.

Metadata is read until its round ends, and decoded it takes many times the bytes of its payload
(13 times, for records of a few numbers each). So a round keeps decoded what fits into its
budget. Of the rest it keeps the payloads, on disk, and decodes one whenever it is read: what was
decoded last is at hand, so that reading several fields of one client costs one decoding.
"""

from __future__ import annotations

import logging
import os
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Generic, TypeAlias, TypeVar, cast

from flwr.app import ConfigRecord

from fedwaggle.errors import RunError
from fedwaggle.metadata import schema_of, unpack
from fedwaggle.strategy.replies.admission import Admitted
from fedwaggle.strategy.updates import ClientUpdate, Contract, Late

__all__ = ["MetadataShelf"]

logger = logging.getLogger("flwr.fedwaggle.strategy")

M = TypeVar("M")
_ReadPayload: TypeAlias = Callable[[], bytes]


class MetadataShelf(Generic[M]):
    """Keeps the metadata of a round.

    Parameters
    ----------
    contract : Contract[M] | None
        What the metadata is; None where none is read.
    budget_bytes : int
        Bytes of payloads whose metadata is kept decoded.
    folder : Path | None (default: None)
        Where the other payloads wait; None is the system's folder for temporary files.
    """

    def __init__(
        self, contract: Contract[M] | None, budget_bytes: int, folder: Path | None = None
    ) -> None:
        self._contract = contract
        self._left = budget_bytes
        self._payloads = _Payloads(folder)
        self._last: tuple[_ReadPayload, M] | None = None

    def put(self, admitted: Admitted[M]) -> ClientUpdate[M | None]:
        """Return an admitted update whose metadata stays within the budget."""
        update = admitted.update
        if self._contract is None or update.metadata_error is not None:
            return update
        record = cast("ConfigRecord", admitted.message.content["metadata"])
        payload = cast("bytes", record["payload"])
        if len(payload) <= self._left:
            self._left -= len(payload)
            return update
        read_payload = self._payloads.put(payload)
        return replace(update, metadata=cast("M", Late(lambda: self._read(read_payload))))

    def _read(self, read_payload: _ReadPayload) -> M:
        """Return what was decoded last, if it is that, or decode a payload."""
        last = self._last
        if last is None or last[0] is not read_payload:
            last = self._last = (read_payload, self._decode(read_payload()))
        return last[1]

    def _decode(self, payload: bytes) -> M:
        contract = cast("Contract[M]", self._contract)
        schema, version = schema_of(contract.schema)
        record = ConfigRecord({"schema": schema, "version": version, "payload": payload})
        if contract.codec != "json":
            record["codec"] = contract.codec
        return unpack(
            record,
            contract.schema,
            codec=contract.codec,
            trust_pickle=contract.trust_pickle,
            max_bytes=contract.max_bytes,
        )


class _Payloads:
    """Payloads on disk, in a file without a name; in memory, if the disk does not take them."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._end = 0
        self._can_write = True

    def put(self, payload: bytes) -> _ReadPayload:
        """Keep a payload, and return what reads it."""
        if self._can_write:
            try:
                return self._write(payload)
            except OSError as error:  # what memory still holds must not cost a round
                self._can_write = False
                logger.warning("metadata stays in memory, it cannot wait on disk: %s", error)
        return lambda: payload

    def _write(self, payload: bytes) -> _ReadPayload:
        if self._file is None:
            # Unbuffered: a full disk shows here, and not in a later call or at the end.
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
            weakref.finalize(self, self._file.close)  # with the last update that lies in it
        begin = self._file.seek(self._end)
        rest = memoryview(payload)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._end = self._file.tell()
        return partial(self._read, begin, len(payload))

    def _read(self, begin: int, size: int) -> bytes:
        assert self._file is not None, "only what was written is read"  # noqa: S101
        try:
            data = os.pread(self._file.fileno(), size, begin)
            if len(data) < size:
                raise OSError("the file is shorter than what was written")
        except OSError as error:
            where = self._folder or tempfile.gettempdir()
            raise RunError(
                f"metadata-budget: metadata that waited in {where} cannot be read back ({error}); "
                "resume the run, on another disk or with a larger metadata-budget"
            ) from error
        return data
