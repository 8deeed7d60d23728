"""Messages on their way to the workers: packed into shared memory, payloads once for all."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, Message

from fedwaggle.engine.local.frames import dump
from fedwaggle.engine.local.linux.protocol import Letter, encode
from fedwaggle.engine.local.linux.shared_memory import Address, Parcel
from fedwaggle.engine.local.messages import (
    PackedRecord,
    array_key,
    describe_arrays,
    pack_content,
    pack_metadata,
)

__all__ = ["Packed", "ParcelSender", "Placed"]

_MOST_PLACED = 4  # array records that are remembered: train and evaluate send the same


@dataclass(eq=False)
class Packed:
    """A message in shared memory.

    Attributes
    ----------
    metadata : tuple[Any, ...]
        Its metadata, as plain values.
    records : list[PackedRecord]
        Its content.
    parcels : list[Parcel]
        What holds its payload, kept until it is answered. The last one takes its letter.
    """

    metadata: tuple[Any, ...]
    records: list[PackedRecord]
    parcels: list[Parcel]
    _letter: Address | None = None

    def letter(self, partition: int, state: bytes) -> Address:
        """Return where a worker finds it with its node's state; the first call writes it there."""
        if self._letter is None:
            words = encode(Letter(self.metadata, self.records, partition, state))
            self._letter = self.parcels[-1].put([words])
        return self._letter


class Placed:
    """The arrays that were put into parcels lately, so that the same ones are put there once."""

    def __init__(self) -> None:
        self._homes: OrderedDict[Any, tuple[Address, Parcel, Any]] = OrderedDict()

    def place(self, record: ArrayRecord, parcel: Parcel) -> tuple[Address, Parcel]:
        """Put arrays into the parcel, unless the same were put into one lately."""
        key = array_key(record)
        if key in self._homes:
            self._homes.move_to_end(key)
        else:
            facts, buffers = describe_arrays(record)
            address = parcel.put([dump(facts), *buffers])
            self._homes[key] = (address, parcel, buffers)  # with its bytes alive, the key is true
            if len(self._homes) > _MOST_PLACED:
                self._homes.popitem(last=False)
        address, home, _ = self._homes[key]
        return address, home


class ParcelSender:
    """Packs the messages of one push into one parcel.

    Parameters
    ----------
    placed : Placed
        What lies in parcels already.

    Raises
    ------
    EngineError
        If this process has as many files open as it may.
    """

    def __init__(self, placed: Placed) -> None:
        self._placed = placed
        self._parcel = Parcel()

    def pack(self, message: Message) -> Packed:
        """Return a message as it is now; the sender may change the object that it holds."""
        parcels: list[Parcel] = []

        def place(record: ArrayRecord) -> tuple[int, ...]:
            address, home = self._placed.place(record, self._parcel)
            parcels.append(home)
            return tuple(address)

        records = pack_content(message.content, place)
        return Packed(pack_metadata(message), records, [*parcels, self._parcel])
