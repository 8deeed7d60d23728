"""Laws of the streaming mean: its readable twin is one line of NumPy."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedwaggle.errors import RunError
from fedwaggle.strategy.averaging import fold as fold_module
from fedwaggle.strategy.averaging.arrays import Arrays, Template
from fedwaggle.strategy.averaging.chunks import chunks_of, on_threads
from fedwaggle.strategy.averaging.fold import Fold, Mean, to_dtype
from fedwaggle.strategy.averaging.spill import Spill


def template_of(arrays: Arrays) -> Template:
    return Template.of(ArrayRecord({key: Array(value) for key, value in arrays.items()}))


def mean_of(
    replies: dict[str, tuple[Arrays, int]], arrival: Sequence[str], **options: object
) -> Mean | None:
    """Fold replies that arrive in any order, in the order of the dict; None stands for a skip."""
    template = template_of(next(iter(replies.values()))[0])
    with Fold(list(replies), template, **options) as fold:
        for client in arrival:
            fold.add(client, *replies[client])
        return fold.finish()


def bits(mean: Mean | None) -> object:
    assert mean is not None
    return {key: (a.dtype, a.shape, a.tobytes()) for key, a in mean.arrays.items()}


def one(*values: float, dtype: str = "float32") -> Arrays:
    return {"w": np.array(values, dtype)}


def random_replies(clients: int, elements: int = 1000) -> dict[str, tuple[Arrays, int]]:
    rng = np.random.default_rng(7)
    return {
        str(k): (
            {
                "w": rng.standard_normal(elements).astype(np.float32),
                "deep": rng.standard_normal((3, 2)),
                "steps": np.array(rng.integers(0, 1000)),
                "spectrum": (rng.standard_normal(2) * 1j).astype(np.complex64),
            },
            int(rng.integers(1, 5000)),
        )
        for k in range(clients)
    }


# -- What the mean is ----------------------------------------------------------------------------


def test_the_mean_weights_each_client_by_its_examples():
    """1 example at 1.0 and 3 examples at 5.0 give (1 * 1 + 3 * 5) / 4 = 4."""
    mean = mean_of({"0": (one(1.0), 1), "1": (one(5.0), 3)}, ["0", "1"])
    assert mean.arrays["w"].tolist() == [4.0]
    assert (mean.weight, mean.clients) == (4, ("0", "1"))


def test_weights_may_be_fractions():
    """(0.5 * 1 + 1.5 * 5) / 2 = 4."""
    mean = mean_of({"0": (one(1.0), 0.5), "1": (one(5.0), 1.5)}, ["0", "1"])
    assert (mean.arrays["w"].tolist(), mean.weight) == ([4.0], 2.0)


@pytest.mark.parametrize("small", [0.1, 1e-9, 1e-300, 5e-324])
@pytest.mark.parametrize("together", [1, 8])
def test_weights_however_small_weigh_as_they_say(monkeypatch, small, together):
    """1 and 3 parts of next to nothing give 4; beside a whole example they are nothing."""
    monkeypatch.setattr(fold_module, "_MOST_TOGETHER", together)
    tiny = {"0": (one(1.0), small), "1": (one(5.0), 3 * small)}
    np.testing.assert_allclose(mean_of(tiny, ["0", "1"]).arrays["w"], [4.0], rtol=1e-6)
    huge = {**tiny, "2": (one(3e38), 10_000_000)}
    np.testing.assert_allclose(mean_of(huge, list(huge)).arrays["w"], [3e38], rtol=1e-6)


def test_whole_numbers_stay_whole_rounded_half_to_even():
    """(2 + 3) / 2 = 2.5 rounds to 2, and (3 + 4) / 2 = 3.5 rounds to 4."""
    replies = {"0": (one(2, 3, dtype="int64"), 1), "1": (one(3, 4, dtype="int64"), 1)}
    mean = mean_of(replies, ["0", "1"])
    assert mean.arrays["w"].dtype == np.int64
    assert mean.arrays["w"].tolist() == [2, 4]


def test_complex_numbers_have_a_complex_mean():
    """(1 * (1 + 2j) + 3 * (5 - 2j)) / 4 = 4 - 1j."""
    replies = {
        "0": (one(1 + 2j, dtype="complex64"), 1),
        "1": (one(5 - 2j, dtype="complex64"), 3),
    }
    mean = mean_of(replies, ["0", "1"]).arrays["w"]
    assert (mean.dtype, mean.tolist()) == (np.complex64, [4 - 1j])


@pytest.mark.parametrize("first", [0, 2**60, -(2**60), 2**62 + 1])
def test_whole_numbers_of_64_bits_keep_every_digit(first):
    """float64 counts to 2**53, and ids, hashes and clocks in nanoseconds do not end there."""
    ids = [first + 1, first + 7]
    replies = {str(k): (one(*(i + k for i in ids), dtype="int64"), 1) for k in (0, 2, 4)}
    mean = mean_of(replies, list(replies)).arrays["w"]
    assert mean.tolist() == [first + 3, first + 9]


@settings(max_examples=100, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(["int64", "uint64"]))
def test_the_mean_of_whole_numbers_is_that_of_pythons(data, dtype):
    """Within the 53 bits that a difference has, and half a step; rounded half to even."""
    limits = np.iinfo(dtype)
    numbers = data.draw(st.lists(st.integers(limits.min, limits.max), min_size=1, max_size=5))
    weights = [data.draw(st.integers(1, 1000)) for _ in numbers]
    replies = {
        str(k): ({"w": np.array([number], dtype)}, weight)
        for k, (number, weight) in enumerate(zip(numbers, weights, strict=True))
    }
    exact = Fraction(sum(n * w for n, w in zip(numbers, weights, strict=True)), sum(weights))
    found = int(mean_of(replies, list(replies)).arrays["w"][0])
    spread = max(numbers) - min(numbers)
    if spread < 2**40:
        assert found == round(exact)
    slack = Fraction(spread, 10**14)  # exact: a float would round what it is compared with
    assert abs(found - exact) <= Fraction(1, 2) + slack
    assert min(numbers) - slack <= found <= max(numbers) + slack


def test_a_mask_takes_the_side_of_the_majority():
    replies = {
        "0": (one(True, True, False, dtype="bool"), 1),
        "1": (one(True, False, False, dtype="bool"), 2),
    }
    assert mean_of(replies, ["0", "1"]).arrays["w"].tolist() == [True, False, False]


def test_the_sum_is_in_float64():
    """In float32, 1 + 16777216 is 16777216, and the mean of three would lose the ones."""
    replies = {"0": (one(16_777_216.0), 1), "1": (one(1.0), 1), "2": (one(1.0), 1)}
    expected = np.float32((16_777_216 + 2) / 3)
    assert mean_of(replies, ["0", "1", "2"]).arrays["w"].tolist() == [expected]


def test_nobody_has_no_mean_and_one_client_is_its_own():
    assert mean_of({"0": (one(1.0), 1)}, []) is None
    assert mean_of({"0": (one(0.1), 7)}, ["0"]).arrays["w"].tolist() == [np.float32(0.1)]


def test_who_is_skipped_or_never_comes_is_passed():
    template = template_of(one(0.0))
    with Fold(["0", "1", "2", "3"], template) as fold:
        fold.add("2", one(4.0), 1)
        fold.skip("0")
        fold.add("1", one(2.0), 1)
        mean = fold.finish()
    assert (mean.arrays["w"].tolist(), mean.clients) == ([3.0], ("1", "2"))


@pytest.mark.parametrize("again", ["0", "stranger"])
def test_a_client_counts_once_and_strangers_never(again):
    with Fold(["0", "1"], template_of(one(0.0))) as fold:
        fold.add("0", one(1.0), 1)
        with pytest.raises(ValueError, match="each only once"):
            fold.add(again, one(9.0), 1)
        with pytest.raises(ValueError, match="each only once"):
            fold.skip(again)
        assert fold.finish().arrays["w"].tolist() == [1.0]


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int64", "uint64", "float16", "float32", "complex64"]
)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_mean_of_equal_replies_is_that_reply(dtype, data):
    is_real = dtype.startswith(("float", "complex"))
    elements = {"allow_nan": False, "allow_infinity": False} if is_real else {}
    array = data.draw(hnp.arrays(dtype, (3,), elements=hnp.from_dtype(np.dtype(dtype), **elements)))
    weights = data.draw(st.lists(st.integers(1, 10_000), min_size=1, max_size=4))
    replies = {str(k): ({"w": array}, weight) for k, weight in enumerate(weights)}
    np.testing.assert_array_equal(mean_of(replies, list(replies)).arrays["w"], array)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(["int64", "uint64", "int8", "float16", "float64"]))
def test_a_mean_of_finite_replies_is_finite_at_the_ends_of_a_dtype_too(data, dtype):
    limits = np.finfo(dtype) if dtype.startswith("f") else np.iinfo(dtype)
    ends = st.sampled_from([limits.min, limits.max])
    weights = data.draw(st.lists(st.integers(1, 2**40), min_size=1, max_size=5))
    replies = {
        str(k): ({"w": np.array([data.draw(ends)], dtype)}, w) for k, w in enumerate(weights)
    }
    mean = mean_of(replies, list(replies)).arrays["w"]
    assert np.isfinite(mean).all()
    assert limits.min <= mean[0] <= limits.max


def test_values_beyond_a_dtype_take_its_last_number_if_whole_and_show_if_not():
    values = np.array([1e300, -1e300, 0.4])
    assert to_dtype(values, np.dtype("int8")).tolist() == [127, -128, 0]
    assert to_dtype(values, np.dtype("int64")).tolist() == [2**63 - 1024, -(2**63), 0]
    assert to_dtype(values, np.dtype("float32")).tolist() == [np.inf, -np.inf, np.float32(0.4)]
    assert to_dtype(values, np.dtype("float64")) is values


# -- The order of summation ----------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_order_of_arrival_changes_no_bit(data):
    replies = random_replies(9)
    present = data.draw(st.sets(st.sampled_from(list(replies)), min_size=1))
    in_order = [client for client in replies if client in present]
    arrival = data.draw(st.permutations(in_order))
    buffer_bytes = data.draw(st.sampled_from([0, 10_000, 1 << 30]))
    expected = mean_of(replies, in_order)
    found = mean_of(replies, arrival, buffer_bytes=buffer_bytes)
    assert bits(found) == bits(expected)
    assert found.clients == expected.clients == tuple(in_order)


def test_another_order_of_summation_does_change_bits():
    """Why there is an order: 0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1."""
    replies = {
        k: (one(value, dtype="float64"), 1) for k, value in zip("abc", (0.1, 0.2, 0.3), strict=True)
    }
    backwards = dict(reversed(replies.items()))
    assert bits(mean_of(replies, "abc")) != bits(mean_of(backwards, "abc"))


def test_the_sum_is_the_same_to_the_bit_on_any_number_of_threads(monkeypatch):
    replies = random_replies(3, elements=(1 << 20) + 12_345)
    means = []
    for cores in ({0}, {0, 1}, {0, 1, 2, 3, 4}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores)
        means.append(bits(mean_of(replies, ["2", "0", "1"])))
    assert means[0] == means[1] == means[2]


def test_how_many_are_summed_at_a_time_changes_no_bit(monkeypatch):
    replies = random_replies(7)
    expected = bits(mean_of(replies, list(replies)))
    for together in (1, 2, 100):
        monkeypatch.setattr(fold_module, "_MOST_TOGETHER", together)
        assert bits(mean_of(replies, list(replies))) == expected


def test_the_chunks_cover_each_element_once():
    chunks = chunks_of([("a", 7), ("empty", 0), ("b", 3)], 3)
    seen = [(key, i) for key, start, stop in chunks for i in range(start, stop)]
    assert seen == [("a", i) for i in range(7)] + [("b", i) for i in range(3)]


def test_what_a_thread_raises_is_raised():
    def work(chunks):
        if chunks[0].start:
            raise ZeroDivisionError
        return 0

    with pytest.raises(ZeroDivisionError):
        on_threads(work, chunks_of([("w", 1 << 21)], 1 << 20))


def test_what_is_summed_is_dropped_memory_follows_the_model_not_the_cohort():
    """Of 100 replies in order, no more than those summed in one go are alive at any time."""
    replies, alive = random_replies(1)["0"][0], []
    most = 0
    with Fold([str(k) for k in range(100)], template_of(replies)) as fold:
        for k in range(100):
            arrays = {key: array.copy() for key, array in replies.items()}
            alive.append(weakref.ref(arrays["w"]))
            fold.add(str(k), arrays, 1)
            del arrays
            most = max(most, sum(ref() is not None for ref in alive))
        assert fold.finish().weight == 100
    assert most <= 8


# -- Beside Flower -------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    values=hnp.arrays(np.float32, (6, 5), elements=st.floats(-100, 100, width=32)),
    weights=st.lists(st.integers(1, 10_000), min_size=6, max_size=6),
)
def test_the_mean_is_flowers_within_the_rounding_of_float32(values, weights):
    replies = {str(k): ({"w": v}, n) for k, (v, n) in enumerate(zip(values, weights, strict=True))}
    contents = [
        RecordDict({"a": ArrayRecord({"w": Array(v)}), "m": MetricRecord({"num-examples": n})})
        for v, n in zip(values, weights, strict=True)
    ]
    flowers = aggregate_arrayrecords(contents, "num-examples")["w"].numpy()
    ours = mean_of(replies, list(replies)).arrays["w"]
    assert ours.dtype == flowers.dtype
    np.testing.assert_allclose(ours, flowers, rtol=1e-5, atol=1e-4)
    exact = np.average(values.astype(np.float64), axis=0, weights=weights)
    np.testing.assert_allclose(ours, exact.astype(np.float32), rtol=2e-7, atol=1e-12)


@pytest.mark.timeout(10)  # it takes 0.1 s, and took 20 s when each looked at all that wait
def test_an_early_reply_costs_the_same_however_many_wait():
    """20,000 clients of whom the first comes last."""
    names = [str(k) for k in range(20_000)]
    with Fold(names, template_of(one(0.0))) as fold:
        for name in reversed(names):
            fold.add(name, one(1.0), 1)
        assert fold.finish().weight == 20_000


# -- Waiting on disk -----------------------------------------------------------------------------


def test_early_replies_past_the_buffer_wait_on_disk_and_leave_nothing_there(tmp_path):
    replies = random_replies(6)
    arrival = list(reversed(replies))
    template = template_of(replies["0"][0])
    with Fold(list(replies), template, buffer_bytes=9000, spill_dir=tmp_path) as fold:
        for client in arrival[:-1]:
            fold.add(client, *replies[client])
        on_disk = [r.client for r in fold._early.values() if isinstance(r.arrays, int)]
        assert sorted(on_disk) == ["3", "4", "5"]  # those whose turn comes last
        assert list(tmp_path.iterdir()) == []  # the file has no name
        fold.add("0", *replies["0"])
        found = fold.finish()
    assert bits(found) == bits(mean_of(replies, list(replies)))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_more_than_the_buffer_waits_in_memory(data):
    """Whatever is added or skipped when; a buffer of 3 replies."""
    arrays = one(1.0, 2.0)
    names = [str(k) for k in range(12)]
    with Fold(names, template_of(arrays), buffer_bytes=3 * 8) as fold:
        for name in data.draw(st.permutations(names)):
            if data.draw(st.booleans()):
                fold.skip(name)
                continue
            fold.add(name, arrays, 1)
            early = [reply.arrays for reply in fold._early.values() if reply is not None]
            in_memory = [arrays for arrays in early if not isinstance(arrays, int)]
            assert len(in_memory) == fold._in_memory <= 3


def test_without_a_disk_they_wait_in_memory_and_it_is_said_once(tmp_path, caplog):
    replies = random_replies(4)
    with caplog.at_level(logging.WARNING):
        found = mean_of(
            replies, list(reversed(replies)), buffer_bytes=0, spill_dir=tmp_path / "not" / "there"
        )
    assert bits(found) == bits(mean_of(replies, list(replies)))
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "early replies stay in memory"
    ]


@dataclass
class FullDisk:
    """A file that takes some bytes and then no more."""

    room: int
    content: bytes = b""
    place: int = 0

    def write(self, data: memoryview) -> int:
        taken = bytes(data[: min(len(data), 100)])  # raw files may take less than they are given
        if self.place + len(taken) > self.room:
            raise OSError(28, "No space left on device")
        self.content = self.content[: self.place] + taken
        self.place += len(taken)
        return len(taken)

    def readinto(self, room: memoryview) -> int:
        data = self.content[self.place : self.place + min(len(room), 100)]
        room[: len(data)] = data
        self.place += len(data)
        return len(data)

    def seek(self, place: int) -> int:
        self.place = place
        return place

    def tell(self) -> int:
        return self.place

    def close(self) -> None:
        self.content = b""


def test_a_reply_that_goes_to_disk_after_another_was_read_back_overwrites_none(tmp_path):
    replies = [arrays for arrays, _ in random_replies(3).values()]
    with Spill(template_of(replies[0]), tmp_path) as spill:
        places = [spill.write(replies[0]), spill.write(replies[1])]
        spill.read(places[0])
        places.append(spill.write(replies[2]))
        for place, arrays in zip(places, replies, strict=True):
            for key, array in spill.read(place).items():
                np.testing.assert_array_equal(array, arrays[key])


def test_a_disk_that_fills_up_costs_nothing_but_memory(monkeypatch, caplog):
    """Room for one reply and a half: the first is read back whole, the second stays in memory."""
    replies = random_replies(5)
    template = template_of(replies["0"][0])
    disk = FullDisk(room=template.num_bytes * 3 // 2)
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: disk)
    found = mean_of(replies, list(reversed(replies)), buffer_bytes=0)
    assert bits(found) == bits(mean_of(replies, list(replies)))
    assert "No space left on device" in caplog.text


def test_a_reply_that_cannot_be_read_back_says_what_to_do(monkeypatch):
    arrays = one(1.0, 2.0)
    disk = FullDisk(room=1000)
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: disk)
    with Spill(template_of(arrays)) as spill:
        place = spill.write(arrays)
        disk.content = disk.content[:-1]
        with pytest.raises(RunError, match=r"fold-buffer.*resume the run"):
            spill.read(place)


def test_closing_a_fold_that_was_given_up_frees_what_waits(tmp_path):
    fold = Fold(["0", "1"], template_of(one(0.0)), buffer_bytes=0, spill_dir=tmp_path)
    fold.add("1", one(1.0), 1)
    fold.close()
    fold.close()
    assert list(tmp_path.iterdir()) == []


def test_an_update_that_is_held_waits_for_a_decision_and_keeps_its_turn():
    """(1 * 1 + 3 * 5) / 4 = 4, whether the first is decided on before or after the second."""
    for decide_first in (True, False):
        with Fold(["0", "1"], template_of(one(0.0))) as fold:
            fold.hold("0", one(1.0))
            if decide_first:
                fold.accept("0", 1)
            fold.add("1", one(5.0), 3)
            if not decide_first:
                fold.accept("0", 1)
            mean = fold.finish()
        assert mean is not None
        assert mean.clients == ("0", "1")
        np.testing.assert_array_equal(mean.arrays["w"], [4.0])


def test_an_update_that_is_held_and_skipped_or_never_decided_on_is_not_in_the_mean():
    with Fold(["0", "1", "2"], template_of(one(0.0)), buffer_bytes=0) as fold:
        fold.hold("0", one(9.0))
        fold.add("1", one(5.0), 3)
        fold.hold("2", one(9.0))
        fold.skip("0")
        with pytest.raises(ValueError, match="expected one that is held"):
            fold.accept("1", 2)
        mean = fold.finish()
    assert mean is not None
    assert mean.clients == ("1",)
    np.testing.assert_array_equal(mean.arrays["w"], [5.0])


@pytest.mark.parametrize("spilled", [True, False])
def test_a_scaled_update_moves_the_mean_by_a_share_of_its_change(spilled):
    """From 2: a change of 8 by a quarter is 4, beside 0 with weight 3: (1 * 4 + 3 * 0) / 4 = 1."""
    current = one(2.0)
    buffer_bytes = 0 if spilled else 1 << 20
    with Fold(["0", "1"], template_of(current), current=current, buffer_bytes=buffer_bytes) as fold:
        fold.hold("0", one(10.0))
        fold.add("1", one(0.0), 3)
        fold.accept("0", 1, {"w": 0.25})
        mean = fold.finish()
    assert mean is not None
    np.testing.assert_array_equal(mean.arrays["w"], [1.0])
    assert mean.weight == 4


def test_an_update_that_is_scaled_to_nothing_is_the_current_model_however_huge():
    current = one(2.0, dtype="float64")
    with Fold(["0"], template_of(current), current=current) as fold:
        fold.hold("0", one(1e308, dtype="float64"))
        fold.accept("0", 1, {"w": 0.0})
        mean = fold.finish()
    assert mean is not None
    np.testing.assert_array_equal(mean.arrays["w"], [2.0])
