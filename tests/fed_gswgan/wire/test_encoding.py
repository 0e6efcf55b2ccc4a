"""Numbers as bytes: exact where they say so, unbiased where they round, bounded where they read."""

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
EIGHT = quantise(np.zeros(4, np.float32), 8)
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
            for other in [packed + b"\0"] + [packed[:-1]] * bool(packed):
                with pytest.raises(ValueError, match="bytes, must hold"):
                    unpack_words(other, width, len(words))

    def test_words_lie_one_after_the_other_from_the_highest_bit(self):
        assert pack_words(np.array([1, 2, 3, 0, 5]), 3) == bytes([0b00101001, 0b10001010])
        assert pack_words(np.array([0x12345678]), 32) == b"\x12\x34\x56\x78"


@pytest.mark.parametrize("bits", COARSE_BITS)
class TestLevels:
    def test_levels_are_odd_multiples_whose_sums_are_exact(self, bits):
        levels = Levels.of(bits, DEVIATION, BOUND)
        values = levels.value(np.arange(2**bits))
        assert values.dtype == np.int64
        assert (values // levels.half_gap % 2 == 1).all()
        assert (values % levels.half_gap == 0).all()
        assert (values == -values[::-1]).all()
        assert set(np.diff(values)) == {2 * levels.half_gap}
        widest = Levels.of(bits, 2.0**30 / 5, 2.0**29)
        index = np.full(10**6, 2**bits - 1)
        assert widest.value(index).sum() == 10**6 * int(widest.value(index[:1])[0])

    def test_each_number_goes_to_the_nearest_level(self, bits):
        levels = Levels(bits, 5)
        values, steps = levels.value(np.arange(2**bits)), np.arange(-1400, 1400)
        distance = np.abs(levels.value(levels.index(steps)) - steps)
        assert (distance == np.abs(values[:, None] - steps).min(axis=0)).all()
        assert levels.index(np.array([-(2**31), 2**31 - 1])).tolist() == [0, 2**bits - 1]
        assert levels.index(values).tolist() == list(range(2**bits))

    def test_gain_and_deviation_are_those_of_the_levels(self, bits):
        levels = Levels.of(bits, DEVIATION, BOUND)
        signal = 0.02 * DEVIATION
        seen = levels.value(levels.index(np.floor(signal + DEVIATION * GAUSSIAN + 0.5))).mean()
        assert seen * levels.gain(DEVIATION) == pytest.approx(signal, rel=0.02)
        noise = levels.value(levels.index(np.rint(DEVIATION * GAUSSIAN)))
        assert levels.deviation(DEVIATION) == pytest.approx(noise.std(), rel=2e-3)
        assert abs(noise.mean()) < DEVIATION / 500  # no bias


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
        if bits <= 8:
            assert quantise(np.zeros((10, 28, 28), np.float32), bits).size < 100  # deflated
            outside = quantise(np.array([-3.0, 7.0], np.float32), bits)
            assert dequantise(outside, bits, (2,)).tolist() == [0, 1]

    @given(st.lists(st.floats(0, 1, width=32), max_size=40), st.sampled_from([16, 8, 4, 2, 1]))
    @settings(deadline=None)
    def test_no_pixel_moves_further_than_half_a_level(self, values, bits):
        pixels = np.array(values, np.float32)
        found = dequantise(quantise(pixels, bits), bits, pixels.shape)
        half = 2.0**-12 if bits == 16 else 0.5 / (2**bits - 1)
        assert (np.abs(found - pixels) <= half + 1e-7).all()
        assert ((found >= 0) & (found <= 1)).all()

    @pytest.mark.parametrize(
        ("bits", "written", "shape"),
        [
            (32, np.zeros(4), (4,)), (32, np.zeros(4, "f4"), (2, 2)), (16, np.zeros(4, "f4"), (4,)),
            (16, np.zeros(5, "f2"), (4,)), (8, np.zeros(4, "f4"), (4,)), (8, EIGHT, (5,)),
            (8, EIGHT, (3,)), (8, np.zeros(4, np.uint8), (4,)), (4, EIGHT[:0], (0, 3)),
            (8, EIGHT[:-1], (4,)), (8, np.append(EIGHT, EIGHT[:1]), (4,)),
        ],
    )  # fmt: skip
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
