import math

import pytest
from scipy.stats import binom

from fed_gswgan.accounting.sampled import revealed_epsilon
from fed_gswgan.privacy.gaussian import gaussian_delta, gaussian_epsilon


@pytest.mark.parametrize(
    ("mu", "probability", "rounds", "delta", "epsilon"),
    [
        (2 * math.sqrt(48) / 2.14, 1 / 866, 20000, 0.00115, 836.8298312227033),
        (100.0, 10 / 866, 1000, 0.00115, 115204.15699909201),
        (math.sqrt(32) / 1.07, 1e-3, 20000, 1e-5, 610.3442532),
    ],
)
def test_known_values(mu, probability, rounds, delta, epsilon):
    found = revealed_epsilon(mu, probability, rounds, delta)
    assert found == pytest.approx(epsilon, rel=1e-6)


@pytest.mark.parametrize(("mu", "probability", "rounds"), [(0.5, 0.3, 20), (3.0, 0.01, 400)])
@pytest.mark.parametrize("delta", [1e-9, 1e-4, 0.05])
def test_delta_is_the_mean_over_the_number_of_selections(mu, probability, rounds, delta):
    epsilon = revealed_epsilon(mu, probability, rounds, delta)
    mean = sum(
        binom.pmf(count, rounds, probability) * gaussian_delta(math.sqrt(count) * mu, epsilon)
        for count in range(rounds + 1)
    )
    assert epsilon > 0
    assert mean == pytest.approx(delta, rel=1e-6)


def test_certain_selection_is_the_exact_gaussian():
    assert revealed_epsilon(0.5, 1.0, 9, 1e-5) == gaussian_epsilon(1.5, 1e-5)
    almost = revealed_epsilon(0.5, 1 - 1e-12, 9, 1e-5)
    assert almost == pytest.approx(gaussian_epsilon(1.5, 1e-5), rel=1e-6)


def test_it_costs_more_than_the_expected_number_of_selections():
    assert revealed_epsilon(1.0, 0.1, 100, 1e-5) > gaussian_epsilon(math.sqrt(10), 1e-5)


def test_who_is_hardly_ever_selected_spends_nothing():
    assert revealed_epsilon(100.0, 1e-6, 9, 1e-5) == 0.0
    assert revealed_epsilon(100.0, 1e-6, 11, 1e-5) > 0.0


def test_a_billion_rounds_are_computed_and_more_are_refused():
    # The number of selections hardly varies: 5e8 +- 1.6e4 of mu^2 each.
    found = revealed_epsilon(1e-4, 0.5, 10**9, 1e-5)
    assert found == pytest.approx(gaussian_epsilon(1e-4 * math.sqrt(5e8), 1e-5), rel=1e-4)
    with pytest.raises(ValueError, match=r"^rounds=1000000001 must"):
        revealed_epsilon(1e-4, 0.5, 10**9 + 1, 1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((-1.0, 0.1, 1, 1e-5), "mu=-1.0 must"),
        ((1.0, 0.0, 1, 1e-5), "sampling-probability=0.0 must"),
        ((1.0, 0.1, 0, 1e-5), "rounds=0 must"),
        ((1.0, 0.1, 1, 0.0), "delta=0.0 must"),
    ],
)
def test_nonsense_is_named(arguments, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        revealed_epsilon(*arguments)
