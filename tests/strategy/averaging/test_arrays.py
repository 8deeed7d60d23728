"""Laws of reading arrays: NumPy's own reader is the slow twin."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.lib import format as npy_format

from fedwaggle.errors import ConfigError
from fedwaggle.strategy.averaging.arrays import ArraySpec, Template, decode, encode
from fedwaggle.strategy.codes import Code, Refused

DTYPES = ["bool", "int8", "uint8", "int64", "uint64", "float16", "float32", "float64"]


def arrays_of(dtypes=DTYPES, max_dims=3):
    shapes = hnp.array_shapes(min_dims=0, max_dims=max_dims, min_side=0, max_side=4)
    return st.sampled_from(dtypes).flatmap(lambda dtype: hnp.arrays(dtype, shapes))


def saved(array: np.ndarray, version: tuple[int, int]) -> bytes:
    file = BytesIO()
    npy_format.write_array(file, array, version=version)
    return file.getvalue()


@given(array=arrays_of(), order=st.sampled_from("CF"), byte_order=st.sampled_from("<>"))
def test_decoding_gives_what_numpy_gives_in_c_order_and_native_bytes(array, order, byte_order):
    sent = np.array(array, array.dtype.newbyteorder(byte_order), order=order)
    decoded = decode(Array(sent), "w", ArraySpec.of(array))
    np.testing.assert_array_equal(decoded, Array(sent).numpy())
    assert (decoded.dtype, decoded.shape) == (array.dtype, array.shape)
    assert decoded.flags.c_contiguous


@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(version):
    array = np.arange(6.0).reshape(2, 3)
    sent = Array("float64", (2, 3), "numpy.ndarray", saved(array, version))
    np.testing.assert_array_equal(decode(sent, "w", ArraySpec.of(array)), array)


def test_a_header_in_another_order_of_words_is_read():
    array = np.array([1.5, 2.5])
    header = b"{'shape': (2,), 'fortran_order': False, 'descr': '<f8'}\n"
    payload = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + array.tobytes()
    sent = Array("float64", (2,), "numpy.ndarray", payload)
    np.testing.assert_array_equal(decode(sent, "w", ArraySpec.of(array)), array)


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview])
def test_any_buffer_can_hold_the_payload_and_is_not_copied(buffer):
    array = np.arange(1000, dtype=np.float32)
    sent = Array(array)
    sent.data = buffer(sent.data)
    decoded = decode(sent, "w", ArraySpec.of(array))
    np.testing.assert_array_equal(decoded, array)
    assert np.shares_memory(decoded, np.frombuffer(sent.data, np.uint8))


@given(array=arrays_of())
def test_encoding_is_what_flower_would_send(array):
    ours, flowers = encode(array), Array(array)
    assert (ours.dtype, ours.shape, ours.stype) == (flowers.dtype, flowers.shape, flowers.stype)
    assert ours.data == flowers.data


def test_encoding_takes_arrays_that_do_not_lie_in_c_order():
    array = np.arange(6.0).reshape(2, 3).T
    np.testing.assert_array_equal(encode(array).numpy(), array)


def test_a_refusal_says_which_array_what_was_expected_and_what_came():
    spec = ArraySpec.of(np.zeros(2, np.float32))
    with pytest.raises(Refused) as refused:
        decode(Array(np.zeros(2)), "fc.bias", spec)
    assert refused.value.code == Code.WRONG_DTYPE
    assert refused.value.reason == "'fc.bias': expected dtype float32, got float64"


def test_a_model_of_what_has_no_mean_is_refused_with_every_mistake():
    names = Array(np.array(["a", "b"]))
    dates = Array(np.zeros(1, "M8[s]"))
    model = ArrayRecord({"ok": Array(np.zeros(1, "c8")), "names": names, "dates": dates})
    with pytest.raises(ConfigError) as error:
        Template.of(model)
    assert [mistake.split(":")[0] for mistake in error.value.mistakes] == [
        "initial arrays, 'names'",
        "initial arrays, 'dates'",
    ]


def test_trainable_is_what_floats_and_is_no_statistic_of_batchnorm():
    model = {
        "conv.weight": np.zeros((2, 2), np.float32),
        "bn.weight": np.zeros(2, np.float32),
        "bn.running_mean": np.zeros(2, np.float32),
        "bn.running_var": np.zeros(2, np.float32),
        "bn.num_batches_tracked": np.array(0),
        "running_mean": np.zeros(2, np.float32),
        "mask": np.zeros(2, bool),
        "spectrum": np.zeros(1, np.complex64),
        "fp8._extra_state": np.zeros(3, np.float32),
    }
    template = Template.of(ArrayRecord({key: Array(value) for key, value in model.items()}))
    assert template.trainable == {"conv.weight", "bn.weight", "spectrum"}
    assert template.num_bytes == 16 + 8 + 8 + 8 + 8 + 8 + 2 + 8 + 12
    assert template.opaque == {"fp8._extra_state"}
    assert set(template.averaged.specs) == set(model) - template.opaque
