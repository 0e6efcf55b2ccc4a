import math

import numpy as np
import pytest
from dp_accounting import dp_event, privacy_accountant
from dp_accounting.pld import pld_privacy_accountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from fed_gswgan.accounting import sampled
from fed_gswgan.accounting.sampled import fixed_size_epsilon, poisson_epsilon
from fed_gswgan.privacy.gaussian import gaussian_epsilon

PAPER_MU = math.sqrt(32) / 1.07
EITHER = pytest.mark.parametrize("epsilon_of", [poisson_epsilon, fixed_size_epsilon])


def log_sampled(epsilon, probability):
    """What an unsampled epsilon becomes in one round: log(1 + q (e^epsilon - 1))."""
    return epsilon + math.log(probability - (probability - 1) * math.exp(-epsilon))


def plain_convolution(mu, probability, rounds, delta, step, reach):
    """Fixed-size sampling by rounding each loss to the nearest point and one Fourier transform."""
    points = round(reach / step)
    edges = step * (np.arange(points + 1) - 0.5)
    edges[0] = 0.0
    logs = (
        edges - math.log(probability) + np.log(probability - np.expm1(-edges) * (1 - probability))
    )
    outcomes = (logs + mu**2 / 2) / mu
    absent, present = np.diff(norm.cdf(outcomes)), np.diff(norm.cdf(outcomes - mu))
    masses = np.zeros(2 * points)  # the negative losses wrap around
    masses[:points] += (1 - probability) * absent + probability * present
    masses[-np.arange(points)] += absent
    masses[0] += 1 - masses.sum()
    sums = np.fft.irfft(np.fft.rfft(masses) ** rounds)[:points]
    losses = step * np.arange(points)
    low, high = 0.0, reach
    while high - low > 1e-9:
        middle = (low + high) / 2
        found = sums @ np.maximum(0, -np.expm1(middle - losses))
        low, high = (middle, high) if found > delta else (low, middle)
    return high


# The epsilon of the paper's settings over the number of rounds, by two independent programs.
@pytest.mark.parametrize(
    ("rounds", "epsilon"), [(1, 18.5), (10, 23.4), (100, 36.7), (1000, 73.2), (20000, 346.66)]
)
def test_rounds_of_the_papers_settings(rounds, epsilon):
    found = fixed_size_epsilon(PAPER_MU, 1e-3, rounds, 1e-5)
    assert found == pytest.approx(epsilon, rel=3e-3)


# (samples, attained by a valid worst case, proven)
@pytest.mark.parametrize(
    ("samples", "attained", "proven"),
    [(1, 0.610, 0.787), (2, 1.28, 1.65), (4, 4.90, 5.59), (8, 21.6, 24.1), (16, 93.2, 102)],
)
def test_samples_of_the_papers_settings(samples, attained, proven):
    mu = math.sqrt(samples) / 1.07
    assert fixed_size_epsilon(mu, 1e-3, 20000, 1e-5) == pytest.approx(proven, rel=6e-3)
    assert poisson_epsilon(mu, 1e-3, 20000, 1e-5) == pytest.approx(attained, rel=6e-3)


@pytest.mark.parametrize(
    ("mu", "probability", "rounds", "delta", "step", "reach"),
    [(1.0, 0.01, 1000, 1e-5, 1e-4, 16), (PAPER_MU, 1e-3, 20000, 1e-5, 1e-3, 1000)],
)
def test_a_plain_convolution_agrees(mu, probability, rounds, delta, step, reach):
    reference = plain_convolution(mu, probability, rounds, delta, step, reach)
    found = fixed_size_epsilon(mu, probability, rounds, delta)
    assert found == pytest.approx(reference, rel=5e-4)


@pytest.mark.parametrize(
    ("mu", "probability", "rounds"), [(1.0, 0.01, 500), (2.5, 0.05, 50), (0.4, 0.4, 30)]
)
def test_poisson_agrees_with_dp_accounting(mu, probability, rounds):
    accountant = pld_privacy_accountant.PLDAccountant(
        privacy_accountant.NeighboringRelation.ADD_OR_REMOVE_ONE
    )
    sampled = dp_event.PoissonSampledDpEvent(probability, dp_event.GaussianDpEvent(1 / mu))
    accountant.compose(sampled, rounds)
    reference = accountant.get_epsilon(1e-6)
    assert poisson_epsilon(mu, probability, rounds, 1e-6) == pytest.approx(reference, rel=1e-3)


@EITHER
@settings(deadline=None, database=None, max_examples=40)
@given(
    st.floats(-3, 2).map(lambda log: 10**log),
    st.floats(-6, -1e-3).map(lambda log: 10**log),
    st.floats(-12, -1).map(lambda log: 10**log),
)
def test_one_round_has_a_closed_form(epsilon_of, mu, probability, delta):
    exact = 0.0
    if delta < probability:
        exact = log_sampled(gaussian_epsilon(mu, delta / probability), probability)
    found = epsilon_of(mu, probability, 1, delta)
    assert exact * (1 - 1e-9) - 1e-12 <= found <= exact * (1 + 6e-4) + 2e-6


@EITHER
@settings(deadline=None, database=None, max_examples=25)
@given(
    st.floats(-3, 1.5).map(lambda log: 10**log),
    st.floats(-5, -0.1).map(lambda log: 10**log),
    st.floats(0, 4).map(lambda log: round(10**log)),
    st.floats(-10, -1).map(lambda log: 10**log),
)
def test_a_secret_selection_costs_no_more_than_to_take_part_in_every_round(
    epsilon_of, mu, probability, rounds, delta
):
    always = gaussian_epsilon(mu * math.sqrt(rounds), delta)
    assert 0 <= epsilon_of(mu, probability, rounds, delta) <= always * (1 + 1e-3) + 2e-6


@EITHER
@pytest.mark.parametrize(
    ("mu", "probability", "rounds", "delta"),
    [(0.2, 1e-3, 20000, 1e-3), (30.0, 0.04, 3, 1e-6), (1.2, 1e-3, 1000, 1e-6), (1, 0.9, 500, 0.1)],
)
def test_a_finer_grid_lowers_epsilon_by_no_more_than_the_tolerance(
    epsilon_of, mu, probability, rounds, delta
):
    found = epsilon_of(mu, probability, rounds, delta)
    finer = epsilon_of(mu, probability, rounds, delta, tolerance=5e-5)
    assert finer * (1 - 1e-9) <= found <= finer * (1 + 4e-4)


def test_a_tiny_delta_survives_a_million_rounds():
    # So many small losses are nearly one Gaussian, of mu = q sqrt(T (e^(mu^2) - 1)).
    mu, probability, rounds, delta = 0.05, 1e-3, 10**6, 1e-12
    limit = probability * math.sqrt(rounds * math.expm1(mu**2))
    found = poisson_epsilon(mu, probability, rounds, delta)
    assert found == pytest.approx(gaussian_epsilon(limit, delta), rel=2e-3)


@EITHER
def test_certain_selection_is_the_exact_gaussian(epsilon_of):
    exact = gaussian_epsilon(2.1, 1e-5)
    assert epsilon_of(0.7, 1.0, 9, 1e-5) == pytest.approx(exact, rel=1e-12)
    assert epsilon_of(0.7, 1 - 1e-9, 9, 1e-5) == pytest.approx(exact, rel=1e-3)


@EITHER
def test_who_is_hardly_ever_selected_spends_nothing(epsilon_of):
    assert epsilon_of(100.0, 1e-6, 9, 1e-5) == 0.0
    assert epsilon_of(100.0, 1e-6, 11, 1e-5) > 0.0


@EITHER
def test_what_does_not_fit_into_memory_is_refused(epsilon_of, monkeypatch):
    monkeypatch.setattr(sampled, "LARGEST_TRANSFORM", 10**4)
    with pytest.raises(ValueError, match=r"^rounds=1000000 .* use sampling=revealed$"):
        epsilon_of(1.0, 1e-3, 10**6, 1e-5)


@EITHER
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0.0, 0.1, 1, 1e-5), "mu=0.0 must"),
        ((math.nan, 0.1, 1, 1e-5), "mu=nan must"),
        ((1.0, 0.0, 1, 1e-5), "sampling-probability=0.0 must"),
        ((1.0, 1.1, 1, 1e-5), "sampling-probability=1.1 must"),
        ((1.0, math.nan, 1, 1e-5), "sampling-probability=nan must"),
        ((1.0, 0.1, 0, 1e-5), "rounds=0 must"),
        ((1.0, 0.1, 1.5, 1e-5), "rounds=1.5 must"),
        ((1.0, 0.1, 1, 1.0), "delta=1.0 must"),
    ],
)
def test_nonsense_is_named(epsilon_of, arguments, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        epsilon_of(*arguments)
