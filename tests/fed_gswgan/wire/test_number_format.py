import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_gswgan.wire.number_format import (
    BITS,
    DTYPES,
    deflate,
    inflate,
    pack,
    packed_shape,
    unpack,
)

LEVELS = 255
WHOLE_BYTES = ("float32", "float16", "uint8")


def there_and_back(values, codec, low=-1.0, high=1.0):
    written = np.array(values, dtype=np.float32)
    return unpack(pack(written, codec, low, high), codec, low, high, written.shape)


@pytest.mark.parametrize("codec", WHOLE_BYTES)
def test_packed_values_have_the_codecs_dtype_and_the_same_shape(codec):
    values = np.zeros((2, 1, 3), dtype=np.float32)
    packed = pack(values, codec, 0, 1)
    assert (packed.dtype, packed.shape) == (np.dtype(DTYPES[codec]), (2, 1, 3))
    unpacked = unpack(packed, codec, 0, 1, (2, 1, 3))
    assert (unpacked.dtype, unpacked.shape) == (np.float32, (2, 1, 3))


@given(st.floats(-1, 1, width=32))
def test_float32_keeps_every_bit_of_a_float32_in_the_range(value):
    values = np.array([value], dtype=np.float32)
    assert there_and_back(values, "float32").tobytes() == values.tobytes()


@pytest.mark.parametrize("codec", ["float32", "float16", "uint8"])
def test_values_beyond_the_public_range_are_clamped_to_its_ends(codec):
    assert there_and_back([1e6, -1e30, 3e38, 0.0], codec, -2.0, 2.0)[:3].tolist() == [2, -2, 2]


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
    values = unpack(levels, "uint8", -11.7, 11.7, levels.shape)
    assert np.array_equal(pack(values, "uint8", -11.7, 11.7), levels)


def test_the_range_is_never_taken_from_the_values():
    alone = pack(np.array([0.25]), "uint8", -1, 1)
    in_company = pack(np.array([0.25, 0.9, -0.9, 100.0]), "uint8", -1, 1)
    assert alone[0] == in_company[0]


@pytest.mark.parametrize("codec", DTYPES)
def test_packing_leaves_its_input_alone(codec):
    values = np.array([[-1e6, 0.3, 1e6]], dtype=np.float32)
    before = values.copy()
    pack(values, codec, -1, 1)
    assert np.array_equal(values, before)


@pytest.mark.parametrize("codec", BITS)
@pytest.mark.parametrize("shape", [(3, 5), (2, 1, 8, 8), (1, 9)])
def test_every_level_of_few_bits_survives_and_takes_no_more_bytes_than_its_bits(codec, shape):
    levels = 2 ** BITS[codec]
    randomness = np.random.default_rng(0)
    values = randomness.integers(0, levels, shape) / (levels - 1) * 6 - 3
    packed = pack(values, codec, -3, 3)
    assert packed.shape == packed_shape(codec, shape)
    assert packed.size == shape[0] * -(-values[0].size * BITS[codec] // 8) or BITS[codec] == 8
    assert np.allclose(unpack(packed, codec, -3, 3, shape), values, atol=1e-6)


def test_bits_are_packed_row_by_row_first_value_first():
    assert pack(np.array([[1, -1, 1, 1, -1], [-1, -1, -1, -1, 1]]), "uint1", -1, 1).tolist() == [
        [0b10110_000],
        [0b00001_000],
    ]
    assert pack(np.array([[0.0, 1.0, 2 / 3]]), "uint2", 0, 1).tolist() == [[0b00_11_10_00]]


@given(st.binary(max_size=300))
def test_what_is_deflated_inflates_to_the_same_bytes(data):
    values = np.frombuffer(data, dtype=np.uint8)
    assert inflate(deflate(values), values.shape).tobytes() == data


def test_a_stream_of_another_length_is_refused_without_being_unpacked():
    bomb = deflate(np.zeros(10**7, dtype=np.uint8))
    assert len(bomb) < 20_000
    tracemalloc.start()
    with pytest.raises(ValueError, match="holds not the 100 bytes"):
        inflate(bomb, (100,))
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()
    with pytest.raises(ValueError, match="holds not the 101 bytes"):
        inflate(deflate(np.zeros(100, dtype=np.uint8)), (101,))


def test_a_torn_stream_or_one_with_a_tail_is_refused():
    whole = deflate(np.arange(100, dtype=np.uint8))
    tail = np.concatenate([whole, np.zeros(1, np.uint8)])
    for broken in (whole[:-1], tail, np.zeros(40, np.uint8), np.empty(0, np.uint8)):
        with pytest.raises(ValueError, match="compressed"):
            inflate(broken, (100,))
