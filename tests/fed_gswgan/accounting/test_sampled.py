import math

import numpy as np
import pytest
from dp_accounting import dp_event, privacy_accountant
from dp_accounting.pld import pld_pmf, pld_privacy_accountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import binom, norm

from fed_gswgan.accounting import sampled
from fed_gswgan.accounting.sampled import (
    RoundLosses,
    SampledRounds,
    fixed_size_epsilon,
    poisson_epsilon,
    revealed_epsilon,
    total_epsilon,
    two_sided,
)
from fed_gswgan.privacy.gaussian import gaussian_delta, gaussian_epsilon

PAPER_MU = math.sqrt(32) / 1.07
EITHER = pytest.mark.parametrize("epsilon_of", [poisson_epsilon, fixed_size_epsilon])


def rounds(mu, probability, count=1):
    return SampledRounds(mu=mu, sampling_probability=probability, rounds=count)


def dp_accountings_epsilon(parts, delta):
    accountant = pld_privacy_accountant.PLDAccountant(
        privacy_accountant.NeighboringRelation.ADD_OR_REMOVE_ONE
    )
    for part in parts:
        gaussian = dp_event.GaussianDpEvent(1 / part.mu)
        once = dp_event.PoissonSampledDpEvent(part.sampling_probability, gaussian)
        accountant.compose(gaussian if part.sampling_probability == 1 else once, part.rounds)
    return accountant.get_epsilon(delta)


def plain_convolution(mu, probability, count, delta, step, reach):
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
    sums = np.fft.irfft(np.fft.rfft(masses) ** count)[:points]
    losses = step * np.arange(points)
    low, high = 0.0, reach
    while high - low > 1e-9:
        middle = (low + high) / 2
        found = sums @ np.maximum(0, -np.expm1(middle - losses))
        low, high = (middle, high) if found > delta else (low, middle)
    return high


# The epsilon of the paper's settings over the number of rounds, by two independent programs.
@pytest.mark.parametrize(
    ("count", "epsilon"), [(1, 18.5), (10, 23.4), (100, 36.7), (1000, 73.2), (20000, 346.66)]
)
def test_rounds_of_the_papers_settings(count, epsilon):
    found = fixed_size_epsilon([rounds(PAPER_MU, 1e-3, count)], 1e-5)
    assert found == pytest.approx(epsilon, rel=3e-3)


# (samples, attained by a valid worst case, proven)
@pytest.mark.parametrize(
    ("samples", "attained", "proven"),
    [(1, 0.610, 0.787), (2, 1.28, 1.65), (4, 4.90, 5.59), (8, 21.6, 24.1), (16, 93.2, 102)],
)
def test_samples_of_the_papers_settings(samples, attained, proven):
    paper = [rounds(math.sqrt(samples) / 1.07, 1e-3, 20000)]
    assert fixed_size_epsilon(paper, 1e-5) == pytest.approx(proven, rel=6e-3)
    assert poisson_epsilon(paper, 1e-5) == pytest.approx(attained, rel=6e-3)


@pytest.mark.parametrize(
    ("mu", "probability", "count", "step", "reach"),
    [(1.0, 0.01, 1000, 1e-4, 16), (PAPER_MU, 1e-3, 20000, 1e-3, 1000)],
)
def test_a_plain_convolution_agrees(mu, probability, count, step, reach):
    reference = plain_convolution(mu, probability, count, 1e-5, step, reach)
    found = fixed_size_epsilon([rounds(mu, probability, count)], 1e-5)
    assert found == pytest.approx(reference, rel=5e-4)


@pytest.mark.parametrize(
    "parts",
    [
        [rounds(1.0, 0.01, 500)],
        [rounds(2.5, 0.05, 50)],
        [rounds(0.4, 0.4, 30)],
        [rounds(1.0, 0.01, 500), rounds(0.8, 1)],
        [rounds(2.5, 0.05, 40), rounds(0.9, 0.004, 700)],
        [rounds(1.1, 0.01, 300), rounds(0.3, 1, 4), rounds(2.0, 0.1, 9)],
    ],
)
def test_poisson_agrees_with_dp_accounting(parts):
    reference = dp_accountings_epsilon(parts, 1e-6)
    assert poisson_epsilon(parts, 1e-6) == pytest.approx(reference, rel=1e-3)


@EITHER
@settings(deadline=None, database=None, max_examples=40)
@given(st.floats(-3, 2), st.floats(-6, -1e-3), st.floats(-12, -1))
def test_one_round_has_a_closed_form(epsilon_of, log_mu, log_probability, log_delta):
    mu, probability, delta = 10**log_mu, 10**log_probability, 10**log_delta
    exact = 0.0
    if delta < probability:
        unsampled = gaussian_epsilon(mu, delta / probability)
        exact = unsampled + math.log(probability - (probability - 1) * math.exp(-unsampled))
    found = epsilon_of([rounds(mu, probability)], delta)
    assert exact * (1 - 1e-9) - 1e-12 <= found <= exact * (1 + 6e-4) + 2e-6


@EITHER
@settings(deadline=None, database=None, max_examples=25)
@given(st.floats(-3, 1.5), st.floats(-5, -0.1), st.floats(0, 4), st.floats(-10, -1))
def test_a_secret_selection_costs_no_more_than_every_round(
    epsilon_of, log_mu, log_probability, log_count, log_delta
):
    mu, count, delta = 10**log_mu, round(10**log_count), 10**log_delta
    always = gaussian_epsilon(mu * math.sqrt(count), delta)
    found = epsilon_of([rounds(mu, 10**log_probability, count)], delta)
    assert 0 <= found <= always * (1 + 1e-3) + 2e-6


@EITHER
@pytest.mark.parametrize(
    ("mu", "probability", "count", "delta"),
    [(0.2, 1e-3, 20000, 1e-3), (30.0, 0.04, 3, 1e-6), (1.2, 1e-3, 1000, 1e-6), (1, 0.9, 500, 0.1)],
)
def test_a_finer_grid_lowers_epsilon_within_the_tolerance(
    epsilon_of, mu, probability, count, delta
):
    found = epsilon_of([rounds(mu, probability, count)], delta)
    finer = epsilon_of([rounds(mu, probability, count)], delta, tolerance=5e-5)
    assert finer * (1 - 1e-9) <= found <= finer * (1 + 4e-4)


def test_a_tiny_delta_survives_a_million_rounds():
    # So many small losses are nearly one Gaussian, of mu = q sqrt(T (e^(mu^2) - 1)).
    mu, probability, count, delta = 0.05, 1e-3, 10**6, 1e-12
    limit = probability * math.sqrt(count * math.expm1(mu**2))
    found = poisson_epsilon([rounds(mu, probability, count)], delta)
    assert found == pytest.approx(gaussian_epsilon(limit, delta), rel=2e-3)


@EITHER
def test_unlike_rounds_add_up(epsilon_of):
    whole = epsilon_of([rounds(0.9, 0.02, 200)], 1e-6)
    split = epsilon_of([rounds(0.9, 0.02, count) for count in (30, 1, 169)], 1e-6)
    assert split == pytest.approx(whole, rel=6e-4)
    some, certain = rounds(1.2, 0.01, 300), rounds(0.6, 1)
    both = epsilon_of([some, certain], 1e-5)
    assert both == pytest.approx(epsilon_of([certain, some], 1e-5), rel=1e-9)
    assert both > max(epsilon_of([some], 1e-5), epsilon_of([certain], 1e-5)) * 1.01
    # Half of delta for either is a bound that any sequence meets.
    assert both < epsilon_of([some], 5e-6) + epsilon_of([certain], 5e-6)


@EITHER
def test_certain_selection_is_the_exact_gaussian(epsilon_of):
    exact = gaussian_epsilon(2.1, 1e-5)
    assert epsilon_of([rounds(0.7, 1.0, 9)], 1e-5) == pytest.approx(exact, rel=1e-12)
    assert epsilon_of([rounds(0.7, 1 - 1e-9, 9)], 1e-5) == pytest.approx(exact, rel=1e-3)
    large = [rounds(60.0, 1.0), rounds(0.1, 0.1)]  # losses whose exponential overflows
    assert epsilon_of(large, 1e-5) == pytest.approx(gaussian_epsilon(60.0, 1e-5), rel=1e-3)


@pytest.mark.parametrize("epsilon_of", [poisson_epsilon, fixed_size_epsilon, None])
def test_who_is_hardly_ever_selected_spends_nothing(epsilon_of):
    for count, spends in ((9, False), (11, True)):
        part = rounds(100.0, 1e-6, count)
        found = epsilon_of([part], 1e-5) if epsilon_of else revealed_epsilon(part, 1e-5)
        assert (found > 0) is spends


@EITHER
def test_what_does_not_fit_into_memory_is_refused(epsilon_of, monkeypatch):
    monkeypatch.setattr(sampled, "LARGEST_TRANSFORM", 10**3)
    parts = [rounds(1.0, 0.01, 10**6), rounds(1.0, 0.02, 10**6)]
    said = r"^rounds=1000000 .*=0.01 .* and .*=0.02 with mu=1 .* use sampling=revealed$"
    with pytest.raises(ValueError, match=said):
        epsilon_of(parts, 1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0.0, 0.1, 1), "mu=0.0 must"),
        ((math.nan, 0.1, 1), "mu=nan must"),
        ((1.0, 0.0, 1), "sampling-probability=0.0 must"),
        ((1.0, 1.1, 1), "sampling-probability=1.1 must"),
        ((1.0, math.nan, 1), "sampling-probability=nan must"),
        ((1.0, 0.1, 0), "rounds=0 must"),
        ((1.0, 0.1, 1.5), "rounds=1.5 must"),
    ],
)
def test_nonsense_is_named(arguments, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        rounds(*arguments)


@pytest.mark.parametrize(
    ("mu", "probability", "count", "delta", "epsilon"),
    [
        (2 * math.sqrt(48) / 2.14, 1 / 866, 20000, 0.00115, 836.8298312227033),
        (100.0, 10 / 866, 1000, 0.00115, 115204.15699909201),
        (PAPER_MU, 1e-3, 20000, 1e-5, 610.3442532),
    ],
)
def test_known_values_of_a_revealed_selection(mu, probability, count, delta, epsilon):
    found = revealed_epsilon(rounds(mu, probability, count), delta)
    assert found == pytest.approx(epsilon, rel=1e-6)


@pytest.mark.parametrize(("mu", "probability", "count"), [(0.5, 0.3, 20), (3.0, 0.01, 400)])
@pytest.mark.parametrize("delta", [1e-9, 1e-4, 0.05])
def test_delta_is_the_mean_over_the_number_of_selections(mu, probability, count, delta):
    epsilon = revealed_epsilon(rounds(mu, probability, count), delta)
    mean = sum(
        binom.pmf(selected, count, probability) * gaussian_delta(math.sqrt(selected) * mu, epsilon)
        for selected in range(count + 1)
    )
    assert epsilon > 0
    assert mean == pytest.approx(delta, rel=1e-6)


def test_a_revealed_selection_has_limits():
    assert revealed_epsilon(rounds(0.5, 1.0, 9), 1e-5) == gaussian_epsilon(1.5, 1e-5)
    # The number of selections hardly varies: 5e8 +- 1.6e4 of mu^2 each.
    found = revealed_epsilon(rounds(1e-4, 0.5, 10**9), 1e-5)
    assert found == pytest.approx(gaussian_epsilon(1e-4 * math.sqrt(5e8), 1e-5), rel=1e-4)
    with pytest.raises(ValueError, match=r"^rounds=1000000001 must"):
        revealed_epsilon(rounds(1e-4, 0.5, 10**9 + 1), 1e-5)


# -- the losses of one round, and how they add up

ROUND = rounds(1.5, 0.2)
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
    for found, worlds in (
        (ROUND.mixture_against_absent(losses), (mixture, norm.pdf)),
        (ROUND.absent_against_mixture(losses), (norm.pdf, mixture)),
    ):
        assert found[0] == pytest.approx(divergence(*worlds, epsilon), rel=1e-6, abs=1e-12)


def test_masses_are_those_of_dp_accountings_connect_the_dots():
    losses = STEP * np.arange(POINTS + 1)
    above, mirrored = ROUND.mixture_against_absent(losses), ROUND.absent_against_mixture(losses)
    below = -np.expm1(-losses) + np.exp(-losses) * mirrored
    reference = pld_pmf.create_pmf_pessimistic_connect_dots(
        STEP, np.arange(-POINTS, POINTS + 1), np.concatenate([below[:0:-1], above])
    ).to_dense_pmf()
    assert two_sided(above, mirrored, STEP).masses == pytest.approx(reference._probs, abs=1e-12)


def test_beyond_the_largest_loss_is_next_to_nothing():
    for count in (1, 10**6):
        part = rounds(1.5, 0.2, count)
        largest = np.array([part.largest_loss(1e-5)])
        assert 0 < count * part.mixture_against_absent(largest)[0] < 1e-11
        assert count * part.absent_against_mixture(largest)[0] < 1e-11


# Losses -0.5, 0, 0.5 and 1, and one time in a million infinity.
LOSSES = RoundLosses(
    step=0.5, lowest=-1, masses=np.array([0.3, 0.3, 0.2, 0.2 - 1e-6]), infinite=1e-6
)
OTHERS = RoundLosses(step=0.5, lowest=-2, masses=np.array([0.1, 0.0, 0.6, 0.3]), infinite=0.0)


@pytest.mark.parametrize("parts", [((LOSSES, 1),), ((LOSSES, 40),), ((LOSSES, 3), (OTHERS, 2))])
@pytest.mark.parametrize("delta", [1e-4, 0.02, 0.15])
def test_delta_at_epsilon_is_the_one_asked_for(parts, delta):
    masses, lowest, finite = np.ones(1), 0, 1.0
    for losses, count in parts:
        for _ in range(count):
            masses = np.convolve(masses, losses.masses)
        lowest += count * losses.lowest
        finite *= (1 - losses.infinite) ** count
    epsilon = total_epsilon(parts, delta)
    sums = 0.5 * (np.arange(len(masses)) + lowest)
    by_hand = 1 - finite + masses @ np.maximum(0, -np.expm1(epsilon - sums))
    assert epsilon > 0
    assert by_hand == pytest.approx(delta, rel=1e-8)


def test_epsilon_is_zero_where_delta_is_met_without():
    # Half and once: 0.2 (1 - e^-0.5) + 0.2 (1 - e^-1) = 0.2051.
    assert total_epsilon([(LOSSES, 1)], 0.206) == 0.0
    assert total_epsilon([(LOSSES, 1)], 0.205) > 0.0


def test_rounding_is_relative_to_delta():
    # Two losses of +-0.01 add up to a binomial, whose far tail can be summed directly.
    count, delta = 10**5, 1e-30
    up = math.exp(0.01) / (1 + math.exp(0.01))
    losses = RoundLosses(step=0.01, lowest=-1, masses=np.array([1 - up, 0, up]), infinite=0.0)
    epsilon = total_epsilon([(losses, count)], delta)
    ups = np.arange(count + 1)
    excess = np.maximum(0, -np.expm1(np.minimum(0, epsilon - 0.01 * (2 * ups - count))))
    tail = np.exp(binom.logpmf(ups, count, up)) @ excess
    assert tail == pytest.approx(delta, rel=1e-6)
