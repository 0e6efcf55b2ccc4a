import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_gswgan.wire.number_format import DTYPES, pack, unpack

LEVELS = 255


def there_and_back(values, codec, low=-1.0, high=1.0):
    return unpack(pack(np.array(values, dtype=np.float32), codec, low, high), codec, low, high)


@pytest.mark.parametrize("codec", DTYPES)
def test_packed_values_have_the_codecs_dtype_and_the_same_shape(codec):
    values = np.zeros((2, 1, 3), dtype=np.float32)
    packed = pack(values, codec, 0, 1)
    assert (packed.dtype, packed.shape) == (np.dtype(DTYPES[codec]), (2, 1, 3))
    unpacked = unpack(packed, codec, 0, 1)
    assert (unpacked.dtype, unpacked.shape) == (np.float32, (2, 1, 3))


@given(st.floats(-1, 1, width=32))
def test_float32_keeps_every_bit_of_a_float32_in_the_range(value):
    values = np.array([value], dtype=np.float32)
    assert there_and_back(values, "float32").tobytes() == values.tobytes()


@pytest.mark.parametrize("codec", ["float32", "float16", "uint8"])
def test_values_beyond_the_public_range_are_clamped_to_its_ends(codec):
    packed = pack(np.array([1e6, -1e30, 3e38, 0.0], np.float32), codec, -2.0, 2.0)
    assert unpack(packed, codec, -2.0, 2.0)[:3].tolist() == [2.0, -2.0, 2.0]


def test_float16_error_is_at_most_half_a_unit_in_the_eleventh_bit():
    values = np.linspace(0.5, 1, 1001, dtype=np.float32)
    assert np.abs(there_and_back(values, "float16") - values).max() <= 2**-12


@given(value=st.floats(-3, 5, width=32))
def test_uint8_error_is_at_most_half_a_step_inside_the_range(value):
    low, high = -3.0, 5.0
    step = (high - low) / LEVELS
    found = there_and_back([value], "uint8", low, high)[0]
    assert abs(found - np.float32(value)) <= step / 2 + 1e-6


def test_uint8_keeps_the_ends_of_the_range_and_clamps_what_lies_beyond():
    found = there_and_back([-2.0, 3.0, -1e30, 1e30], "uint8", -2.0, 3.0)
    assert found.tolist() == [-2.0, 3.0, -2.0, 3.0]


def test_uint8_rounds_to_the_nearest_level():
    # Over 0 .. 255 a level is 1.
    values = np.array([7.0, 7.4, 7.6, 127.49, 127.51], dtype=np.float32)
    assert pack(values, "uint8", 0, 255).tolist() == [7, 7, 8, 127, 128]


def test_uint8_has_no_level_at_the_middle_of_the_range_and_takes_the_next():
    assert pack(np.zeros(1), "uint8", -1, 1).tolist() == [128]
    assert there_and_back([0.0], "uint8")[0] == pytest.approx(1 / LEVELS)  # 128 x 2 / 255 - 1


def test_all_256_levels_survive_another_round_trip():
    levels = np.arange(256, dtype=np.uint8)
    values = unpack(levels, "uint8", -11.7, 11.7)
    assert np.array_equal(pack(values, "uint8", -11.7, 11.7), levels)


def test_the_range_is_never_taken_from_the_values():
    alone = pack(np.array([0.25]), "uint8", -1, 1)
    in_company = pack(np.array([0.25, 0.9, -0.9, 100.0]), "uint8", -1, 1)
    assert alone[0] == in_company[0]


@pytest.mark.parametrize("codec", DTYPES)
def test_packing_leaves_its_input_alone(codec):
    values = np.array([-1e6, 0.3, 1e6], dtype=np.float32)
    before = values.copy()
    pack(values, codec, -1, 1)
    assert np.array_equal(values, before)
