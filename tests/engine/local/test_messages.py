"""What crosses between processes comes out as it went in, and is plain."""

from __future__ import annotations

import enum
import os
import resource
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from fedwaggle.engine.flwr_private import state_from_bytes, state_to_bytes
from fedwaggle.engine.local import fast_arrays
from fedwaggle.engine.local.frames import (
    Frame,
    FrameSender,
    dump,
    load,
    read_all,
    receive_frame,
    split,
)
from fedwaggle.engine.local.linux.shared_memory import Parcel, ParcelReader
from fedwaggle.engine.local.messages import (
    array_key,
    describe_arrays,
    pack_content,
    rebuild_arrays,
    unpack_content,
)
from fedwaggle.errors import EngineError

SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
)
VALUES = SCALARS | st.lists(st.integers()) | st.lists(st.text()) | st.lists(st.binary())
DTYPES = st.one_of(
    st_numpy.integer_dtypes(endianness="?"),
    st_numpy.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    st_numpy.boolean_dtypes(),
    st_numpy.complex_number_dtypes(sizes=(64, 128)),
)
ARRAYS = DTYPES.flatmap(lambda d: st_numpy.arrays(d, st_numpy.array_shapes(min_dims=0, min_side=0)))


def through_the_wire(content: RecordDict) -> RecordDict:
    arrays: list[ArrayRecord] = []

    def place(record: ArrayRecord) -> int:
        arrays.append(record)
        return len(arrays) - 1

    packed, _ = split(dump(pack_content(content, place)))
    return unpack_content(packed, lambda i: rebuild_arrays(*describe_arrays(arrays[i])))


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=4))
def test_records_come_out_equal_and_of_the_same_types(values: dict) -> None:
    record = through_the_wire(RecordDict({"c": ConfigRecord(values)}))["c"]
    assert dict(record) == values
    assert [type(v) for v in record.values()] == [type(v) for v in values.values()]


def test_all_kinds_of_records_keep_their_names_order_and_arrays() -> None:
    arrays = ArrayRecord(
        {"w": Array(np.arange(6.0).reshape(2, 3)), "b": Array(np.int64(3) + np.zeros(1))}
    )
    content = RecordDict({"z": arrays, "m": MetricRecord({"a": [1, 2]}), "c": ConfigRecord()})
    other = through_the_wire(content)
    assert list(other) == ["z", "m", "c"]
    assert other == content
    assert other["z"] is not arrays


class Colour(str, enum.Enum):  # noqa: UP042  # prints as Colour.RED, which StrEnum does not
    RED = "red"


def test_values_of_richer_types_become_plain_ones() -> None:
    record = ConfigRecord(
        {"f": np.float64(0.5), "s": Colour.RED, "l": [np.float64(1), np.float64(2)]}
    )
    plain = through_the_wire(RecordDict({"c": record}))["c"]
    assert dict(plain) == {"f": 0.5, "s": "red", "l": [1.0, 2.0]}
    assert {type(plain["f"]), type(plain["s"]), type(plain["l"][0])} == {float, str}


def test_a_value_that_flower_cannot_send_is_refused() -> None:
    record = ConfigRecord({"x": [1]})
    record["x"].append({})  # behind Flower's back
    with pytest.raises(TypeError, match="expected int, float, str, bytes or bool, got dict"):
        pack_content(RecordDict({"c": record}), lambda r: None)


def test_array_records_have_one_key_while_their_bytes_are_the_same_objects() -> None:
    record = ArrayRecord([np.zeros(2)])
    same, other = ArrayRecord(dict(record)), ArrayRecord([np.zeros(2)])
    assert array_key(record) == array_key(same) != array_key(other)
    changeable = ArrayRecord([np.zeros(2)])
    changeable["0"].data = bytearray(changeable["0"].data)
    assert array_key(changeable) != array_key(changeable)


@given(ARRAYS)
def test_fast_arrays_are_flowers_arrays(array: np.ndarray) -> None:
    """The same bytes from an array, and the same array from bytes, also on the second time."""
    for form in (array, array.T):
        expected = Array.from_numpy_ndarray(form)
        for _ in range(2):
            fast = fast_arrays.from_numpy_ndarray(Array, form)
            assert fast == expected
            back = fast_arrays.numpy(fast)
            np.testing.assert_array_equal(back, expected.numpy())
            assert (back.dtype, back.shape) == (form.dtype, form.shape)
            assert back.flags.writeable
            assert not np.shares_memory(back, np.frombuffer(fast.data, np.uint8))


@pytest.mark.parametrize("cut", [0, 5, 9, 40, 130])
def test_fast_arrays_fail_where_flowers_fail(cut: int) -> None:
    whole = Array(np.arange(4.0))
    fast_arrays.numpy(whole)  # its layout is remembered
    broken = Array(whole.dtype, whole.shape, whole.stype, whole.data[:cut])
    with pytest.raises(Exception) as expected:  # noqa: PT011  # whatever NumPy raises
        broken.numpy()
    with pytest.raises(type(expected.value)):
        fast_arrays.numpy(broken)


def test_fast_arrays_are_undone_afterwards() -> None:
    before = (Array.numpy, Array.__dict__["from_numpy_ndarray"])
    with fast_arrays.fast_arrays():
        assert Array.numpy is fast_arrays.numpy
        np.testing.assert_array_equal(Array(np.ones(3)).numpy(), np.ones(3))
    assert (Array.numpy, Array.__dict__["from_numpy_ndarray"]) == before


@pytest.mark.parametrize("size", [0, 10, 32_000, 40_000, 5_000_000])
def test_a_frame_of_any_size_arrives_whole(size: int) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        buffers = [b"a" * size, b"", memoryview(b"bc")]
        sender = FrameSender(ours)
        for _ in range(3):
            sender.send(dump(("head", size)), buffers)
            frame = receive_frame(theirs)
            assert frame is not None
            assert frame.values == ("head", size)
            assert frame.buffers([size, 0]) == [b"a" * size, b""]
            assert frame.buffers([2]) == [b"bc"]
            frame.close()
        ours.close()
        assert receive_frame(theirs) is None


def test_the_memory_of_a_frame_is_used_again_only_when_it_was_read() -> None:
    """Three large frames; the second is sent while the first is held, the third after both."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        sender = FrameSender(ours)
        sizes = [100_000, 200_000, 50_000]

        def send(number: int) -> Frame:
            sender.send(dump(number), [b"%d" % number * sizes[number]])
            frame = receive_frame(theirs)
            assert frame is not None
            return frame

        first, second = send(0), send(1)
        assert first.buffers([sizes[0]]) == [b"0" * sizes[0]]
        assert second.buffers([sizes[1]]) == [b"1" * sizes[1]]
        memory = {os.fstat(fd).st_ino for fd in sender._unread}
        assert len(memory) == 2
        first.close(), second.close()
        third = send(2)
        (fd,) = sender._unread
        assert os.fstat(fd).st_ino in memory
        assert os.fstat(fd).st_size < sizes[1]
        assert third.buffers([sizes[2]]) == [b"2" * sizes[2]]
        third.close()


def test_a_sender_waits_while_too_much_of_what_it_sent_was_not_read() -> None:
    """Two frames of 5 MB, where 8 MiB may lie about: the second is sent when the first is read."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    with ours, theirs, ThreadPoolExecutor(1) as thread:
        sender = FrameSender(ours)
        sender.send(dump(0), [bytes(5_000_000)])
        first = receive_frame(theirs)
        assert first is not None
        second = thread.submit(sender.send, dump(1), [bytes(5_000_000)])
        with pytest.raises(TimeoutError):
            second.result(timeout=0.1)
        with pytest.raises(BlockingIOError):
            receive_frame(theirs)
        first.close()
        second.result(timeout=30)
        sent = receive_frame(theirs)
        assert sent is not None
        assert sent.values == 1


def test_a_frame_that_finds_no_room_for_its_file_says_so() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        FrameSender(ours).send(dump("head"), [b"a" * 40_000])
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            with pytest.raises(EngineError, match="as many files open as it may"):
                receive_frame(theirs)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_parcel_is_read_by_its_address() -> None:
    parcel = Parcel()
    first = parcel.put([dump("x"), b"123"])
    second = parcel.put([b"%d" % n for n in range(1500)])
    reader = ParcelReader(os.getpid())
    values, end = load(reader.open(first), first.offset)
    assert (values, read_all(reader.open(first), 3, end)) == ("x", b"123")
    assert read_all(reader.open(second), 4, second.offset) == b"0123"
    reader.close()


def test_a_parcel_too_many_says_what_to_do() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    parcels = []
    try:
        with pytest.raises(EngineError, match=r"at most 64 open files.*push more messages in one"):
            parcels.extend(Parcel() for _ in range(65))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_state_is_flowers_own_bytes() -> None:
    state = RecordDict({"a": ArrayRecord([np.ones(2)]), "c": ConfigRecord({"k": b"v"})})
    assert state_from_bytes(state_to_bytes(state)) == state
    assert state_to_bytes(RecordDict()) == b""
    assert not state_from_bytes(b"")
