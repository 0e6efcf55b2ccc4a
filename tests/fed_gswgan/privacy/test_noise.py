"""Exactness of the rounded Gaussian, and promises of the noise sources."""

import math
import random
from unittest.mock import Mock

import mpmath
import numpy as np
import pytest
from scipy.special import ndtri

from fed_gswgan.privacy import noise as module
from fed_gswgan.privacy.noise import (
    SecureNoise,
    SeededNoise,
    fine_step,
    named_noise_source,
    rounded_gaussian,
)

REFERENCE = mpmath.MPContext()
REFERENCE.prec = 700


class Bits:
    """A source of bits known beforehand; random ones, always the same, after them."""

    def __init__(self, bits="", seed=0):
        self._waiting = bits
        self._random = random.Random(seed)
        self.drawn = ""

    def __call__(self, count):
        given, self._waiting = self._waiting[:count], self._waiting[count:]
        bits = given + "".join(self._random.choices("01", k=count - len(given)))
        self.drawn += bits
        return int(bits, 2)


def tail_at(boundary, center, scale, sign):
    """Return P(|N| > |Z|) of the Z that moves the center exactly to the boundary."""
    size = sign * (REFERENCE.mpf(boundary) - REFERENCE.mpf(center)) / REFERENCE.mpf(scale)
    return REFERENCE.erfc(size / REFERENCE.sqrt(2))


def is_nearest(found, center, scale, word, further=""):
    """Tell by definition whether all U that begin with these bits round to ``found``."""
    sign = 1 if word & 1 else -1
    depth = 63 + len(further)
    low = int(f"{word >> 1:b}{further}", 2)
    ends = [REFERENCE.ldexp(REFERENCE.mpf(end), -depth) for end in (low, low + 1)]
    inner, outer = (tail_at(found - sign * half, center, scale, sign) for half in (0.5, -0.5))
    return outer <= ends[0] and ends[1] <= inner


def draw(center, scale, word, more_bits):
    words = np.array([word], dtype=np.uint64)
    return int(rounded_gaussian(np.array([center]), scale, words, more_bits)[0])


def test_every_draw_is_the_number_nearest_to_the_exact_sum():
    randomness = np.random.default_rng(1)
    count = 800
    words = randomness.integers(0, 2**64, count, dtype=np.uint64)
    words[::4] >>= randomness.integers(1, 60, len(words[::4])).astype(np.uint64)  # deep tails
    centers = randomness.standard_normal(count) * 10.0 ** randomness.integers(-300, 9, count)
    scale = 2.14 * 2**9
    together = rounded_gaussian(centers, scale, words, Bits())
    decided = 0
    for word, center, beside_others in zip(words.tolist(), centers.tolist(), together, strict=True):
        found = draw(center, scale, word, more_bits := Bits())
        assert is_nearest(found, center, scale, word, more_bits.drawn), word
        if not more_bits.drawn:
            decided += 1
            assert beside_others == found
    assert decided > 720


def on_a_boundary(randomness, same_bits):
    """Return a center, a scale and a word with bits that follow a boundary's, then leave it."""
    scale = randomness.uniform(1024, 2048)
    center = randomness.choice([0.0, 0.25, 1.0, 1e3]) * randomness.uniform(-1, 1)
    sign = randomness.choice([-1, 1])
    away = randomness.uniform(0, randomness.choice([0.01, 1, 3, 8])) * scale
    boundary = round(center + sign * away) + sign * 0.5
    depth = 63 + same_bits
    near = int(REFERENCE.floor(REFERENCE.ldexp(tail_at(boundary, center, scale, sign), depth + 1)))
    bits = f"{near ^ 1:0{depth + 1}b}"  # the last bit is another than the boundary's
    word = int(bits[:63], 2) << 1 | (sign > 0)
    return center, scale, word, bits[63:]


def test_draws_that_run_along_a_boundary_are_decided_by_the_bit_that_leaves_it():
    randomness = random.Random(2)
    sides = set()
    for seed in range(300):
        center, scale, word, bits = on_a_boundary(randomness, randomness.randrange(400))
        more_bits = Bits(bits, seed)
        found = draw(center, scale, word, more_bits)
        assert len(more_bits.drawn) >= 63
        assert is_nearest(found, center, scale, word, more_bits.drawn)
        sides.add(bits[-1])
    assert sides == {"0", "1"}


@pytest.mark.parametrize("last", [0, 1, 2, 5, 2**20])
@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("zeros", [0, 10, 300])
def test_the_last_words_are_spread_over_the_far_tail(last, sign, zeros):
    word = last << 1 | sign
    more_bits = Bits("0" * zeros)
    found = draw(0.3, 1500.0, word, more_bits)
    assert is_nearest(found, 0.3, 1500.0, word, more_bits.drawn)
    assert (found > 0) == bool(sign)
    if last == 0 and zeros == 300:
        assert 21 < abs(found) / 1500 < 24  # 2^-363 is beyond 22.3 deviations


@pytest.mark.parametrize("more", ["0", "1"])
def test_a_draw_without_end_is_given_up_at_the_public_depth(monkeypatch, more):
    monkeypatch.setattr(module, "MAX_DEPTH", 63 * 16)
    more_bits = Bits(more * 2000)
    # The middle of the distribution is a boundary here, and U = 0.111... runs along it.
    word = (2**63 - 1) << 1 | 1 if more == "1" else 0
    found = draw(0.5, 1024.0, word, more_bits)
    assert len(more_bits.drawn) == 63 * 15
    if more == "1":
        assert found in (0, 1)
    else:
        assert -38 < found / 1024 < -36  # 2^-1008


def test_zero_has_no_sign_that_would_tell_the_side_it_came_from():
    # The tail is just below 1: a size of 0.0001 deviations.
    words = np.array([int(0.9999 * 2**63) << 1, int(0.9999 * 2**63) << 1 | 1], dtype=np.uint64)
    found = rounded_gaussian(np.zeros(2), 1024.0, words, Bits())
    assert found.tolist() == [0.0, 0.0]
    assert not np.signbit(found).any()


def test_words_turn_into_normals_by_inversion():
    # Even words are negative; the other 63 bits are the chance of a larger size: 0.3173 beyond 1.
    one = int(0.31731050786291415 * 2**63) << 1
    words = np.array([one, one | 1, 2**64 - 1], dtype=np.uint64)
    found = rounded_gaussian(np.array([7.0, 7.0, 7.0]), 1500.0, words, Bits())
    assert found.tolist() == [-1493, 1507, 7]


def test_ndtri_is_far_better_than_is_assumed_of_it():
    randomness = np.random.default_rng(5)
    edges = [2**k + d for k in range(2, 63) for d in (-1, 0, 1)]
    spread = (2.0 ** (63 * randomness.random(500))).astype(np.uint64).tolist()
    uniform = randomness.integers(0, 2**63, 500).tolist()
    tails = np.array([0, 1, 2, *edges, *spread, *uniform], dtype=np.uint64).astype(np.float64)
    probabilities = (tails + 0.5) * 2.0**-64
    for probability, found in zip(probabilities, ndtri(probabilities), strict=True):
        z = REFERENCE.mpf(float(found))
        # One step of Newton from a start this near doubles the digits.
        missing = REFERENCE.mpf(float(probability)) - REFERENCE.erfc(-z / REFERENCE.sqrt(2)) / 2
        assert abs(missing / REFERENCE.npdf(z)) < 2.0**-46


@pytest.mark.parametrize("size", [0.0, 0.1, 1.0, 2.5, 5.0, 9.5, 20.0])
@pytest.mark.parametrize("depth", [63, 126, 1008])
def test_tail_probability_is_that_of_a_series_summed_by_hand(size, depth):
    # P(|Z| < x) = sqrt(2 / pi) exp(-x^2 / 2) (x + x^3 / 3 + x^5 / 15 + ...)
    context = mpmath.MPContext()
    context.prec = depth + 700
    x = context.mpf(size)
    term = total = x
    for n in range(1, 4000):
        term *= x * x / (2 * n + 1)
        total += term
    inside = context.sqrt(2 / context.pi) * context.exp(-x * x / 2) * total
    expected = int(context.floor(context.ldexp(1 - inside, depth)))
    assert abs(module._tail_bound(module.Fraction(size), depth) - expected) <= 1


class TestSources:
    @pytest.mark.parametrize("nested", [1, 2, 4, 8])
    def test_a_nested_grid_is_unbiased(self, monkeypatch, nested):
        """Each draw beside its mirror image, so that the noise itself cancels.

        Without the shift by half a fine step, ties would raise the mean by that much.
        """
        words = np.random.default_rng(6).integers(0, 2**64, 40_000, dtype=np.uint64)
        mirrored = np.concatenate([words, words ^ np.uint64(1)]).tobytes()
        monkeypatch.setattr(module.secrets, "token_bytes", lambda count: mirrored)
        fine = fine_step(2.14)
        for center in (0.0, 0.3, -17.4):  # fine steps
            values = np.full(80_000, center * fine)
            steps = SecureNoise().draw(values, 2.14, nested * fine)
            assert steps.mean() * nested == pytest.approx(center, abs=0.05)

    @pytest.mark.parametrize("make", [SecureNoise, lambda: SeededNoise(np.random.default_rng(0))])
    @pytest.mark.parametrize("coarser", [1, 4, 2**10])
    def test_both_sources_draw_the_gaussian_around_the_values(self, make, coarser):
        values = np.tile([0.0, 1.0, -3.0], (20_000, 1))
        step = coarser * fine_step(0.5)
        steps = make().draw(values, 0.5, step)
        assert (steps.dtype, steps.shape) == (np.int64, values.shape)
        deviation = math.hypot(0.5, step / math.sqrt(12))
        assert steps.mean(axis=0) * step == pytest.approx(values[0], abs=6 * 0.6 / 20_000**0.5)
        assert steps.std(axis=0) * step == pytest.approx(np.full(3, deviation), rel=6 / 40_000**0.5)

    def test_secure_noise_is_the_operating_systems(self, monkeypatch):
        """As many bytes for any values; no seed decides; without the system there is none."""
        asked, drawn, real = [], [], module.secrets.token_bytes
        monkeypatch.setattr(module.secrets, "token_bytes", lambda n: asked.append(n) or real(n))
        for values in (np.zeros(5), np.zeros(5), np.full(5, 1e30), np.full(5, -1e-300)):
            np.random.seed(0)
            random.seed(0)
            source = named_noise_source("secure", np.random.default_rng(0))
            drawn.append(source.draw(values, 1.0, fine_step(1.0)).tolist())
        assert asked == [40] * 4
        assert drawn[0] != drawn[1]
        monkeypatch.setattr(module.secrets, "token_bytes", Mock(side_effect=OSError("no entropy")))
        with pytest.raises(OSError, match="no entropy"):
            SecureNoise().draw(np.zeros(3), 1.0, fine_step(1.0))

    def test_seeded_noise_is_the_generators_normal_on_the_grid(self):
        values, step = np.array([0.0, 0.1, -5.0]), 2**9 * fine_step(0.7)
        source = named_noise_source("seeded", np.random.default_rng(8))
        exact = values + 0.7 * np.random.default_rng(8).standard_normal(3)
        assert np.abs(source.draw(values, 0.7, step) * step - exact).max() <= step / 2

    @pytest.mark.parametrize("stddev", [1e-30, 0.5, 1.0, 1.999, 3e20])
    def test_noise_is_added_on_a_grid_of_a_thousandth_of_it(self, stddev):
        fine = fine_step(stddev)
        assert stddev / 2**11 < fine <= stddev / 2**10
        assert math.frexp(fine)[0] == 0.5
        for source in (SecureNoise(), SeededNoise(np.random.default_rng(0))):
            noisy = source.add_noise(np.zeros(9), stddev)
            assert (noisy / fine).tolist() == np.rint(noisy / fine).tolist()
            assert 0 < np.abs(noisy).max() < 9 * stddev
