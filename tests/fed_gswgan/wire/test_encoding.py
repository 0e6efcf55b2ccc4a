"""Numbers as bytes: exact where they say so, unbiased where they round, bounded where they read."""

import math
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from fed_gswgan.wire.encoding import (
    COARSE_BITS,
    Levels,
    dequantise,
    pack_words,
    packed_bytes,
    quantise,
    unpack_words,
)

# A Gaussian's quantiles: 200,001 draws in equal shares, for means without a sampling error.
GAUSSIAN = norm.ppf((np.arange(200_001) + 0.5) / 200_001)
DEVIATION, BOUND = 1500.0, 700.0  # grid steps


class TestWords:
    @pytest.mark.parametrize("width", range(1, 33))
    def test_every_width_is_packed_without_loss_or_waste(self, width):
        top = 2**width - 1
        random = np.random.default_rng(width).integers(0, top, 50, endpoint=True)
        for words in (random, random[:1], random[:0], np.array([0, top, top, 0, top])):
            packed = pack_words(words, width)
            assert len(packed) == packed_bytes(width, len(words)) == -(-len(words) * width // 8)
            assert unpack_words(packed, width, len(words)).tolist() == words.tolist()

    def test_words_lie_one_after_the_other_from_the_highest_bit(self):
        assert pack_words(np.array([1, 2, 3, 0, 5]), 3) == bytes([0b00101001, 0b10001010])
        assert pack_words(np.array([0x12345678]), 32) == b"\x12\x34\x56\x78"

    @pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: b""])
    def test_another_number_of_bytes_is_refused(self, change):
        with pytest.raises(ValueError, match="bytes, must hold 7"):
            unpack_words(change(bytes(7)), 5, 11)


@pytest.mark.parametrize("bits", COARSE_BITS)
class TestLevels:
    def test_levels_lie_at_odd_multiples_and_mirror(self, bits):
        levels = Levels.of(bits, DEVIATION, BOUND)
        values = levels.value(np.arange(2**bits))
        assert values.dtype == np.int64
        assert (values // levels.half_gap % 2 == 1).all()
        assert (values % levels.half_gap == 0).all()
        assert (values == -values[::-1]).all()
        assert set(np.diff(values)) == {2 * levels.half_gap}

    def test_each_number_goes_to_the_nearest_level(self, bits):
        levels = Levels(bits, 5)
        values = levels.value(np.arange(2**bits))
        steps = np.arange(-1400, 1400)
        distance = np.abs(levels.value(levels.index(steps)) - steps)
        assert (distance == np.abs(values[:, None] - steps).min(axis=0)).all()
        far = np.array([-(2**31), 2**31 - 1])
        assert levels.index(far).tolist() == [0, 2**bits - 1]
        assert levels.index(values).tolist() == list(range(2**bits))

    def test_sums_of_levels_are_exact(self, bits):
        levels = Levels.of(bits, 2.0**30 / 5, 2.0**29)
        index = np.full(10**6, 2**bits - 1)
        assert levels.value(index).sum() == 10**6 * int(levels.value(index[:1])[0])

    def test_the_gain_undoes_what_levels_do_to_a_small_signal(self, bits):
        levels = Levels.of(bits, DEVIATION, BOUND)
        signal = 0.02 * DEVIATION
        seen = levels.value(levels.index(np.floor(signal + DEVIATION * GAUSSIAN + 0.5))).mean()
        assert seen * levels.gain(DEVIATION) == pytest.approx(signal, rel=0.02)

    def test_the_deviation_is_that_of_levels_of_pure_noise(self, bits):
        levels = Levels.of(bits, DEVIATION, BOUND)
        seen = levels.value(levels.index(np.rint(DEVIATION * GAUSSIAN)))
        assert levels.deviation(DEVIATION) == pytest.approx(seen.std(), rel=2e-3)
        assert abs(seen.mean()) < DEVIATION / 500  # no bias


def test_one_bit_is_the_sign_with_the_gain_of_a_sign():
    """E sign(s + Z) grows by 2 phi(0) = sqrt(2 / pi), times the level, here one deviation."""
    levels = Levels.of(1, DEVIATION, BOUND)
    assert levels.value(levels.index(np.array([-7, -1, 0, 7]))).tolist() == [
        -1500,
        -1500,
        1500,
        1500,
    ]
    assert levels.gain(DEVIATION) == pytest.approx(math.sqrt(math.pi / 2))
    assert levels.deviation(DEVIATION) == 1500


class TestPixels:
    @pytest.mark.parametrize("bits", [32, 16, 8, 4, 2, 1])
    def test_public_levels_survive_exactly(self, bits):
        top = 2 ** min(bits, 8) - 1
        levels = (np.arange(24).reshape(2, 3, 4) % (top + 1) / top).astype(np.float32)
        if bits == 16:
            levels = levels.astype(np.float16).astype(np.float32)
        found = dequantise(quantise(levels, bits), bits, (2, 3, 4))
        assert (found.dtype, found.shape) == (np.float32, (2, 3, 4))
        assert found.tolist() == levels.tolist()

    @given(
        values=st.lists(st.floats(0, 1, width=32), max_size=40),
        bits=st.sampled_from([16, 8, 4, 2, 1]),
    )
    @settings(deadline=None)
    def test_no_pixel_moves_further_than_half_a_level(self, values, bits):
        pixels = np.array(values, np.float32)
        found = dequantise(quantise(pixels, bits), bits, pixels.shape)
        half = 2.0**-12 if bits == 16 else 0.5 / (2**bits - 1)
        assert (np.abs(found - pixels) <= half * (1 + 1e-6)).all()
        assert ((found >= 0) & (found <= 1)).all()

    @pytest.mark.parametrize("bits", COARSE_BITS)
    def test_pixels_of_few_bits_are_deflated(self, bits):
        plain = quantise(np.zeros((10, 28, 28), np.float32), bits)
        assert plain.dtype == np.uint8
        assert plain.size < 100
        outside = dequantise(quantise(np.array([-3.0, 7.0], np.float32), bits), bits, (2,))
        assert outside.tolist() == [0, 1]

    @pytest.mark.parametrize(
        ("bits", "written", "shape"),
        [
            (32, np.zeros(4, np.float64), (4,)),
            (32, np.zeros(4, np.float32), (2, 2)),
            (16, np.zeros(4, np.float32), (4,)),
            (16, np.zeros(5, np.float16), (4,)),
            (8, np.zeros(4, np.float32), (4,)),
            (8, np.zeros(4, np.uint8), (4,)),  # not deflated
            (8, quantise(np.zeros(4, np.float32), 8), (5,)),
            (8, quantise(np.zeros(4, np.float32), 8), (3,)),
            (8, quantise(np.zeros(4, np.float32), 8)[:-1], (4,)),  # without its checksum
            (8, np.append(quantise(np.zeros(4, np.float32), 8), np.uint8(0)), (4,)),  # and more
            (1, quantise(np.zeros(9, np.float32), 1), (8,)),
            (4, np.zeros(0, np.uint8), (0, 3)),
        ],
    )
    def test_what_is_not_the_shape_is_refused(self, bits, written, shape):
        with pytest.raises(ValueError, match=r"^(is|does not hold) "):
            dequantise(written, bits, shape)

    @pytest.mark.parametrize("bits", COARSE_BITS)
    def test_a_bomb_is_inflated_no_further_than_the_shape(self, bits):
        bomb = np.frombuffer(zlib.compress(bytes(2**25), 9), np.uint8)
        assert bomb.size < 2**16
        tracemalloc.start()
        with pytest.raises(ValueError, match="does not hold"):
            dequantise(bomb, bits, (10, 28, 28))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20
