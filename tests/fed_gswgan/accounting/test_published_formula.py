import math
from dataclasses import replace

import pytest

from fed_gswgan.accounting.trust import published_epsilon
from fed_gswgan.privacy.events import SanitizedGradientEvent

EVENT = SanitizedGradientEvent(samples=32, clipping="sample", clipping_bound=1.0, noise_stddev=2.14)


def test_the_published_ten_comes_out():
    assert published_epsilon(EVENT, 1e-3, 20000, 1e-5) == pytest.approx(9.992624296723676, rel=1e-6)


def test_rows_count_like_rounds():
    rows = published_epsilon(replace(EVENT, samples=4), 1e-2, 100, 1e-5)
    assert rows == published_epsilon(replace(EVENT, samples=1), 1e-2, 400, 1e-5)
    whole = published_epsilon(replace(EVENT, clipping="message"), 1e-2, 400, 1e-5)
    assert whole == rows


def test_one_order_by_hand():
    # Noise so small that order 2 is the best: its moment is log(1 + q^2 2 e^(1 / sigma^2)).
    sigma, probability = 0.1, 0.05
    event = replace(EVENT, samples=1, noise_stddev=2 * sigma)
    expected = math.log1p(2 * probability**2 * math.exp(1 / sigma**2)) + math.log(1e5)
    assert published_epsilon(event, probability, 1, 1e-5) == pytest.approx(expected, rel=1e-12)
