import math
from itertools import pairwise

import pytest
from scipy.stats import norm

from fed_gswgan.config import COARSE_CODECS
from fed_gswgan.wire.coarse_gradient import COARSE_RANGE, coarse_gain
from fed_gswgan.wire.number_format import BITS


def mean_and_variance(codec, signal):
    """Those of a decoded coordinate, exactly: noise of standard deviation 1."""
    levels, end = 2 ** BITS[codec], COARSE_RANGE[codec]
    values = [-end + 2 * end * k / (levels - 1) for k in range(levels)]
    edges = [-math.inf, *((a + b) / 2 for a, b in pairwise(values)), math.inf]
    shares = [norm.cdf(b - signal) - norm.cdf(a - signal) for a, b in pairwise(edges)]
    mean = sum(p * v for p, v in zip(shares, values, strict=True))
    square = sum(p * v * v for p, v in zip(shares, values, strict=True))
    return coarse_gain(codec) * mean, coarse_gain(codec) ** 2 * (square - mean**2)


def test_the_codecs_that_settings_call_coarse_are_those_with_a_range():
    assert set(COARSE_CODECS) == set(COARSE_RANGE)


@pytest.mark.parametrize("codec", COARSE_RANGE)
@pytest.mark.parametrize("signal", [1e-4, 0.01, -0.1, 0.3, 1.0])
def test_the_mean_is_the_signal_within_the_bias_that_is_promised(codec, signal):
    mean, _ = mean_and_variance(codec, signal)
    assert mean == pytest.approx(signal, rel=signal**2 / 6 + 1e-6)


@pytest.mark.parametrize(("codec", "kept"), [("uint4", 0.98), ("uint2", 0.88), ("uint1", 0.636)])
def test_the_information_kept_is_what_is_promised(codec, kept):
    _, variance = mean_and_variance(codec, 0.0)
    assert 1 / variance > kept


def test_one_bit_is_decoded_by_the_known_constant():
    assert coarse_gain("uint1") == pytest.approx(math.sqrt(math.pi / 2))


@pytest.mark.parametrize("codec", ["float32", "float16", "uint8"])
def test_finer_codecs_are_decoded_as_they_are(codec):
    assert coarse_gain(codec) == 1
