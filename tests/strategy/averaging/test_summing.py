"""Laws of the weighted sum: its readable twin is one line of NumPy, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedwaggle.strategy.averaging import summing
from fedwaggle.strategy.averaging.arrays import Template
from fedwaggle.strategy.averaging.fold import Fold
from fedwaggle.strategy.averaging.summing import add_weighted

DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "longdouble"),
]


def twin(sums, replies, weights):
    """Return what the sums are to become."""
    sums = [total.copy() for total in sums]
    for arrays, weight in zip(replies, weights, strict=True):
        for total, array in zip(sums, arrays, strict=True):
            np.add(total, weight * array.astype(np.float64), out=total)
    return sums


def read_only(array):
    return np.frombuffer(array.tobytes(), array.dtype)  # as the view of a payload is


def test_two_replies_of_weights_10_and_20():
    sums = [np.array([1.0, 2.0]), np.array([0.0])]
    replies = [
        [np.array([1.0, 0.0], np.float32), np.array([True])],
        [np.array([0.0, 1.0], np.float32), np.array([False])],
    ]
    add_weighted(sums, replies, [10.0, 20.0])
    assert [total.tolist() for total in sums] == [[11.0, 22.0], [10.0]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("chunk", [3, 1 << 15], ids=["in many chunks", "small"])
def test_every_dtype_is_summed_as_its_float64(dtype, chunk, monkeypatch):
    """In chunks of 3 elements, 7 elements are large, and go another way than small arrays."""
    monkeypatch.setattr(summing, "_CHUNK_ELEMENTS", chunk)
    monkeypatch.setattr(summing, "_SEGMENT_ELEMENTS", 2 * chunk)
    rng = np.random.default_rng(3)
    replies = [[read_only(rng.integers(0, 2, 7).astype(dtype))] for _ in range(3)]
    sums = [rng.standard_normal(7)]
    expected = twin(sums, replies, [0.5, 3.0, 1e-3])
    add_weighted(sums, replies, [0.5, 3.0, 1e-3])
    assert sums[0].tobytes() == expected[0].tobytes()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(["float32", "float64"]))
def test_each_element_is_rounded_as_numpy_rounds_it(data, dtype):
    """One product, one sum: nothing is fused, and no order but that of the replies is taken."""
    elements = st.floats(-(2.0**99), 2.0**99, width=32)
    size = data.draw(st.integers(0, 40))
    replies = data.draw(st.lists(hnp.arrays(dtype, size, elements=elements), max_size=5))
    weights = data.draw(
        st.lists(st.floats(1e-6, 1e6), min_size=len(replies), max_size=len(replies))
    )
    sums = [data.draw(hnp.arrays("float64", size, elements=elements))]
    expected = twin(sums, [[array] for array in replies], weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summing, "_CHUNK_ELEMENTS", 7)
        patch.setattr(summing, "_SEGMENT_ELEMENTS", 14)
        add_weighted(sums, [[array] for array in replies], weights)
    assert sums[0].tobytes() == expected[0].tobytes()


def test_arrays_of_true_size_on_threads_are_the_twins_to_the_bit():
    rng = np.random.default_rng(5)
    sizes = (1_500_000, 32_768, 32_769, 1, 0)
    replies = [[rng.standard_normal(n).astype(np.float32) for n in sizes] for _ in range(3)]
    sums = [rng.standard_normal(n) for n in sizes]
    expected = twin(sums, replies, [0.1, 7.0, 1e9])
    add_weighted(sums, replies, [0.1, 7.0, 1e9])
    assert [total.tobytes() for total in sums] == [total.tobytes() for total in expected]


def test_the_sum_is_on_the_cpu_whatever_device_the_user_has_chosen():
    """`torch.set_default_device("cuda")` in a server app moves no part of it."""
    sums = [np.zeros(40_000)]
    with torch.device("meta"):
        add_weighted(sums, [[np.ones(40_000, np.float32)]], [2.0])
    assert sums[0].tolist() == [2.0] * 40_000


def test_nothing_is_added_when_the_last_reply_went_with_a_full_batch():
    """With 8 replies of a large array nothing is left to add at the end."""
    array = np.ones(1 << 16, np.float32)
    template = Template.of(ArrayRecord({"w": Array(array)}))
    with Fold([str(k) for k in range(8)], template) as fold:
        for k in range(8):
            fold.add(str(k), {"w": array * k}, 1)
        mean = fold.finish()
    assert mean.arrays["w"].tolist() == [3.5] * (1 << 16)
