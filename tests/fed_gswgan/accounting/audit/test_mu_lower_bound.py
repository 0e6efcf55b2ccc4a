import numpy as np
import pytest
from scipy.special import ndtri

from fed_gswgan.accounting.audit import mu_lower_bound


def seeded(seed=0):
    return np.random.Generator(np.random.Philox(key=seed))


def gaussian_bounds(mu, count, repeats, false_alarm):
    randomness = seeded()
    return np.array(
        [
            mu_lower_bound(
                mu + randomness.standard_normal(count),
                randomness.standard_normal(count),
                false_alarm,
            )
            for _ in range(repeats)
        ]
    )


@pytest.mark.parametrize("mu", [0.0, 0.5, 0.935, 2.0, 5.287])
def test_bound_lies_above_the_truth_no_more_often_than_allowed(mu):
    assert (gaussian_bounds(mu, 1000, 400, false_alarm=1e-3) > mu).sum() == 0
    assert (gaussian_bounds(mu, 200, 1000, false_alarm=0.1) > mu).mean() < 0.1


# Medians of 40 repeats at 99.9 %, from an independent computation.
@pytest.mark.parametrize(
    ("mu", "thousand", "ten_thousand"),
    [(0.5, 0.10, 0.38), (0.935, 0.55, 0.80), (2.0, 1.50, 1.84), (5.287, 3.95, 4.80)],
)
def test_power_grows_with_the_number_of_scores(mu, thousand, ten_thousand):
    found = [np.median(gaussian_bounds(mu, count, 40, 1e-3)) for count in (1000, 10_000)]
    assert found == pytest.approx([thousand, ten_thousand], abs=0.06)


def test_worlds_that_never_mix_are_bounded_by_their_number_alone():
    # Ten of each are left to judge by: a rate p shows no error in ten with (1 - p)^10 = 0.005.
    largest_rate = 1 - 0.005**0.1
    bound = mu_lower_bound(np.full(20, 5.0), np.zeros(20), false_alarm=0.01)
    assert bound == pytest.approx(-2 * ndtri(largest_rate))


def test_infinite_scores_tell_the_worlds_apart():
    finite = mu_lower_bound(np.full(2000, 5.0), np.zeros(2000), 1e-3)
    assert mu_lower_bound(np.full(2000, np.inf), np.zeros(2000), 1e-3) == finite


@pytest.mark.parametrize("score", [0.0, np.inf])
def test_worlds_that_look_alike_have_no_bound_but_zero(score):
    assert mu_lower_bound(np.full(1000, score), np.full(1000, score), 1e-3) == 0.0


def test_worlds_in_the_unexpected_order_count_for_nothing():
    assert mu_lower_bound(np.zeros(1000), np.full(1000, 5.0), 1e-3) == 0.0


def test_coin_flips_reach_the_mu_of_their_error_rates():
    # Right with probability 0.8 in both worlds: mu = 2 Phi^-1(0.8) = 1.683.
    randomness = seeded(3)
    present = (randomness.random(100_000) < 0.8).astype(float)
    changed = (randomness.random(100_000) < 0.2).astype(float)
    assert 1.62 < mu_lower_bound(present, changed, 1e-3) < 1.6833


def test_what_judges_does_not_choose():
    """A threshold that only the second half would suggest is not used."""
    first = np.zeros(500)
    present, changed = np.append(first, np.full(500, 2.0)), np.append(first, np.full(500, 1.0))
    assert mu_lower_bound(present, changed, 1e-3) == 0.0


@pytest.mark.parametrize(("count", "false_alarm"), [(1, 1e-3), (10, 0.0), (10, 1.0)])
def test_too_few_scores_and_a_certain_alarm_are_refused(count, false_alarm):
    with pytest.raises(ValueError, match=r"scores=1|false-alarm="):
        mu_lower_bound(np.zeros(count), np.zeros(count), false_alarm)
