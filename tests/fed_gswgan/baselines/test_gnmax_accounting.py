import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from fed_gswgan.baselines.gnmax_accounting import (
    ORDERS,
    epsilon_of_rdp,
    threshold_rdp,
    votes_rdp,
)
from fed_gswgan.privacy.gaussian import gaussian_epsilon


def winner_distribution(counts: np.ndarray, noise_stddev: float) -> np.ndarray:
    """Return the probability of each bin to win, by integration over its own noise."""

    def density(value: float, index: int) -> float:
        others = np.delete(counts, index)
        own = norm.pdf(value, counts[index], noise_stddev)
        return float(own * norm.cdf((value - others) / noise_stddev).prod())

    low, high = counts.min() - 12 * noise_stddev, counts.max() + 12 * noise_stddev
    return np.array([quad(density, low, high, args=(i,), limit=200)[0] for i in range(len(counts))])


def renyi(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    powers = (ORDERS[:, None] * np.log(first)) + (1 - ORDERS[:, None]) * np.log(second)
    return np.logaddexp.reduce(powers, axis=1) / (ORDERS - 1)


@pytest.mark.parametrize("counts", [(30, 0, 0), (25, 3, 2), (15, 14, 1), (20, 10, 0)])
def test_the_bound_covers_a_teacher_that_changes_its_vote(counts):
    noise_stddev = 4.0
    before = np.array(counts, dtype=float)
    after = before + np.array([-1, 1, 0])
    bound = votes_rdp(before[None], noise_stddev)
    p, q = winner_distribution(before, noise_stddev), winner_distribution(after, noise_stddev)
    assert (renyi(p, q) <= bound + 1e-6).all()


def test_clear_votes_cost_less_than_the_bound_that_no_data_enter():
    noise_stddev = 10.0
    clear = votes_rdp(np.array([[200.0, 0, 0]]), noise_stddev)
    close = votes_rdp(np.array([[100.0, 100, 0]]), noise_stddev)
    assert close == pytest.approx(ORDERS / noise_stddev**2)
    assert (clear <= close).all()
    assert clear[ORDERS == 5] < 1e-3 * close[ORDERS == 5]


def test_a_threshold_that_is_clearly_passed_or_missed_costs_little():
    counts, noise_stddev = np.array([[60.0, 40.0]]), 10.0
    at_it = threshold_rdp(counts, 60.0, noise_stddev)
    assert at_it == pytest.approx(ORDERS / (2 * noise_stddev**2))
    for threshold in (-140.0, 260.0):
        assert threshold_rdp(counts, threshold, noise_stddev)[0] < 1e-3 * at_it[0]


def test_the_threshold_s_bound_covers_a_count_that_moves_by_one():
    noise_stddev, threshold = 5.0, 50.0
    for count in (50.0, 60.0, 70.0):
        bound = threshold_rdp(np.array([[count, 0.0]]), threshold, noise_stddev)
        for neighbor in (count - 1, count + 1):
            p = norm.sf(threshold, count, noise_stddev)
            q = norm.sf(threshold, neighbor, noise_stddev)
            assert (renyi(np.array([p, 1 - p]), np.array([q, 1 - q])) <= bound + 1e-9).all()


def test_queries_add_up_and_no_query_costs_nothing():
    counts = np.array([[9.0, 1.0], [5.0, 5.0]])
    apart = votes_rdp(counts[:1], 2.0) + votes_rdp(counts[1:], 2.0)
    assert votes_rdp(counts, 2.0) == pytest.approx(apart)
    assert (votes_rdp(np.empty((0, 10)), 2.0) == 0).all()


def test_the_epsilon_of_a_plain_gaussian_is_a_little_above_the_exact_one():
    mu = 0.8
    exact = gaussian_epsilon(mu, 1e-5)
    assert exact < epsilon_of_rdp(ORDERS * mu**2 / 2, 1e-5) < 1.3 * exact
