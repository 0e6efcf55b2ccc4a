"""Attacks on one user's part in a sum: they see what is there, and never more than is claimed."""

import numpy as np
import pytest

from benchmarks.attacks import DELTA, best_possible, epsilon_lower_bound, shadow_scores, sums
from fed_gswgan.privacy.gaussian import gaussian_mu


def test_a_canary_in_sums_shows_some_of_the_epsilon_that_is_claimed_and_no_more():
    found = sums(20_000)
    assert 0.05 < found.epsilon_lower_bound <= found.claimed_epsilon == 1


def test_a_quarter_of_the_noise_is_convicted():
    found = sums(20_000, noise_share=0.25)
    assert found.epsilon_lower_bound > found.claimed_epsilon


def scores(mu, trials):
    """Return scores of the two worlds of a Gaussian mechanism."""
    randomness = np.random.default_rng(0)
    return mu + randomness.standard_normal(trials), randomness.standard_normal(trials)


def test_a_hundred_trials_a_world_cannot_see_epsilon_1_and_a_hundred_thousand_can():
    mu = gaussian_mu(1.0, DELTA)
    assert epsilon_lower_bound(*scores(mu, 100)) == 0
    assert 0.3 < epsilon_lower_bound(*scores(mu, 100_000)) <= 1


def test_a_bound_ends_at_what_so_many_trials_can_show():
    apart = np.ones(100), np.zeros(100)
    assert epsilon_lower_bound(*apart) == best_possible(100) < 3
    assert epsilon_lower_bound(np.zeros(100), np.zeros(100)) == 0


@pytest.mark.slow
def test_without_noise_the_released_generator_shows_the_canary():
    present, absent = shadow_scores(2, epsilon=1e6)
    assert present.min() > absent.max()
