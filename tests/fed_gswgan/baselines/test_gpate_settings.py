from dataclasses import replace

import pytest

from fed_gswgan.baselines.gpate_settings import SMALL


def test_a_query_costs_two_over_votes_noise_squared_and_one_over_threshold_noise_squared():
    votes, threshold = replace(SMALL, threshold_noise_ratio=6.0).releases(50.0)
    assert votes.mu**2 == pytest.approx(2 / 50**2)
    assert threshold.mu**2 == pytest.approx(1 / 300**2)
