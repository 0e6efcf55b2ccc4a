from fractions import Fraction

import numpy as np
import pytest

from fed_gswgan.privacy.clipped_update import clip_update, update_event
from fed_gswgan.privacy.events import NeighboringRelation

EVENT = update_event(0.1, 0.01)


def exact_squared_norm(values):
    return sum(Fraction(float(value)) ** 2 for value in values)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e30])
def test_the_exact_norm_never_exceeds_the_bound(scale):
    for seed in range(50):
        update = np.random.default_rng(seed).standard_normal(257).astype(np.float32) * scale
        values = clip_update(update, EVENT).values_P
        assert values.dtype == np.float32
        assert exact_squared_norm(values) <= Fraction(EVENT.clipping_bound) ** 2


def test_a_small_update_is_unchanged_and_a_large_one_keeps_its_direction():
    small = np.array([0.01, -0.02], np.float32)
    assert np.array_equal(clip_update(small, EVENT).values_P, small)
    large = clip_update(1000 * small, EVENT).values_P
    assert large == pytest.approx(small / np.linalg.norm(small) * 0.1, rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_becomes_zero(bad):
    assert not clip_update(np.array([1.0, bad], np.float32), EVENT).values_P.any()


def test_mu_is_bound_over_noise_of_the_sum():
    assert EVENT.mu(NeighboringRelation.ZERO_OUT) == pytest.approx(1 / 0.01)
    assert EVENT.mu(NeighboringRelation.REPLACE_ONE) == pytest.approx(2 / 0.01)
    assert EVENT.noise_added_by == "server"
