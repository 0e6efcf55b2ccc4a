import numpy as np
import pytest
from dp_accounting.pld import pld_pmf
from scipy.integrate import quad
from scipy.stats import norm

from fed_gswgan.accounting.sampled import SampledGaussian
from fed_gswgan.privacy.gaussian import gaussian_delta

ROUND = SampledGaussian(mu=1.5, sampling_probability=0.2)
STEP, POINTS = 0.02, 300


def mixture(outcome):
    return 0.2 * norm.pdf(outcome, 1.5) + 0.8 * norm.pdf(outcome)


def divergence(first, second, epsilon):
    def difference(outcome):
        return max(0.0, first(outcome) - np.exp(epsilon) * second(outcome))

    return quad(difference, -12, 14, limit=400, epsabs=1e-12)[0]


@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.2, 0.22, 0.5, 2.0])
def test_deltas_are_the_divergences(epsilon):
    losses = np.array([epsilon])
    assert ROUND.mixture_against_absent(losses)[0] == pytest.approx(
        divergence(mixture, norm.pdf, epsilon), rel=1e-6, abs=1e-12
    )
    assert ROUND.absent_against_mixture(losses)[0] == pytest.approx(
        divergence(norm.pdf, mixture, epsilon), rel=1e-6, abs=1e-12
    )


def test_absence_is_never_clearer_than_one_over_the_chance_of_it():
    losses = np.array([0.2231, 0.2232, 1.0])  # -log(1 - q) = 0.22314
    assert (ROUND.absent_against_mixture(losses) > 0).tolist() == [True, False, False]


def test_each_world_mirrors_the_other():
    first, second = ROUND.poisson_pairs(STEP, POINTS)
    losses = STEP * (first.lowest + np.arange(len(first.masses)))
    mirrored = (second.masses * np.exp(-losses))[::-1]
    apart = np.abs(losses) > STEP / 2
    assert first.masses[apart] == pytest.approx(mirrored[apart], rel=1e-9)
    assert first.masses.sum() + first.infinite == pytest.approx(1, abs=1e-12)


def test_the_fixed_size_pair_joins_the_larger_halves():
    first, second = ROUND.poisson_pairs(STEP, POINTS)
    joined = ROUND.fixed_size_pair(STEP, POINTS)
    assert joined.masses[POINTS + 1 :] == pytest.approx(first.masses[POINTS + 1 :])
    assert joined.masses[:POINTS] == pytest.approx(second.masses[:POINTS])
    assert joined.masses.sum() + joined.infinite == pytest.approx(1, abs=1e-12)


def test_masses_are_those_of_dp_accountings_connect_the_dots():
    losses = STEP * np.arange(POINTS + 1)
    above = ROUND.mixture_against_absent(losses)
    below = -np.expm1(-losses) + np.exp(-losses) * ROUND.absent_against_mixture(losses)
    reference = pld_pmf.create_pmf_pessimistic_connect_dots(
        STEP, np.arange(-POINTS, POINTS + 1), np.concatenate([below[:0:-1], above])
    ).to_dense_pmf()
    found = ROUND.poisson_pairs(STEP, POINTS)[0]
    assert found.masses == pytest.approx(reference._probs, abs=1e-12)


def test_beyond_the_largest_loss_is_next_to_nothing():
    for rounds in (1, 10**6):
        largest = np.array([ROUND.largest_loss(rounds, 1e-5)])
        assert 0 < rounds * ROUND.mixture_against_absent(largest)[0] < 1e-11
        assert rounds * ROUND.absent_against_mixture(largest)[0] < 1e-11


def test_certain_selection_is_the_plain_gaussian():
    always = SampledGaussian(mu=1.5, sampling_probability=1.0)
    losses = np.array([0.0, 0.3, 2.0])
    exact = [gaussian_delta(1.5, loss) for loss in losses]
    assert always.mixture_against_absent(losses) == pytest.approx(exact, rel=1e-12)
    assert always.absent_against_mixture(losses) == pytest.approx(exact, rel=1e-12)
    largest = always.largest_loss(1, 1e-5)
    assert 0 < gaussian_delta(1.5, largest) < 1e-12
