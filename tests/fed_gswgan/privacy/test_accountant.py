import math

import pytest
from dp_accounting import gaussian_mechanism
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_gswgan.privacy.events import (
    NeighboringRelation,
    SanitizedGradientEvent,
    UnsupportedEventError,
    compose,
    local_epsilon,
)
from fed_gswgan.privacy.gaussian import gaussian_delta, gaussian_epsilon, gaussian_mu

REPLACE, ZERO = NeighboringRelation.REPLACE_ONE, NeighboringRelation.ZERO_OUT

# Each epsilon was also computed by dp_accounting, most by its privacy loss distributions too.
# (name, noise_stddev, clipping, samples, participations, honest, relation, delta, epsilon)
VECTORS = [
    ("v001", 2.14, "sample", 1, 1, 1, "replace-one", 1e-05, 4.0481120395969015),
    ("v002", 2.14, "sample", 1, 1, 1, "zero-out", 1e-05, 1.848227847683404),
    ("v004", 2.14, "sample", 32, 1, 1, "zero-out", 1e-05, 14.17510354889704),
    ("v005", 2.14, "sample", 32, 20, 1, "replace-one", 1e-05, 379.4170606158102),
    ("v007", 2.14, "sample", 48, 23, 1, "zero-out", 0.00115, 166.9543184509848),
    ("v008", 2.14, "sample", 48, 24, 1, "replace-one", 0.00115, 598.8460909847034),
    ("v010", 8, "sample", 1, 10, 1, "replace-one", 1e-06, 3.747217991426808),
    ("v011", 32, "sample", 8, 10, 1, "zero-out", 1e-06, 1.1965273336464919),
    ("v013", 1, "sample", 32, 1, 1, "zero-out", 0.001, 32.68623489811072),
    ("v014", 200, "sample", 1, 1000, 1, "replace-one", 1e-09, 1.7880248269409784),
    ("v016", 2.14, "message", 48, 23, 1, "replace-one", 0.00115, 22.949069853463886),
    ("v017", 4, "message", 32, 5, 1, "zero-out", 1e-06, 2.5486978448196798),
    ("v043", 2.14, "sample", 32, 30, 90, "replace-one", 0.0001, 15.359704874265898),
    ("v044", 2.14, "sample", 32, 30, 50, "zero-out", 0.0001, 9.144954671794396),
    ("v046", 1, "sample", 1, 10, 50, "replace-one", 1e-05, 3.848610282537982),
]
# (name, epsilon, delta, mu)
MU_VECTORS = [
    ("v047", 1.0, 0.00115, 0.39447482718017124),
    ("v049", 1.0, 1e-06, 0.23670438066343416),
    ("v050", 10.0, 1e-06, 1.8481322057667193),
]


def event(noise_stddev=8.0, clipping="sample", samples=1):
    return SanitizedGradientEvent(
        samples=samples, clipping=clipping, clipping_bound=1.0, noise_stddev=noise_stddev
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector[0])
def test_epsilon_of_the_known_values(vector):
    _, stddev, clipping, samples, participations, honest, relation, delta, epsilon = vector
    released, relation = event(stddev, clipping, samples), NeighboringRelation(relation)
    found = local_epsilon(released, participations, relation, delta, honest)
    assert found == pytest.approx(epsilon, rel=1e-6)


@pytest.mark.parametrize(("name", "epsilon", "delta", "mu"), MU_VECTORS)
def test_mu_of_the_known_values(name, epsilon, delta, mu):
    assert gaussian_mu(epsilon, delta) == pytest.approx(mu, rel=1e-6)


@pytest.mark.parametrize("mu", [0.03, 0.5, 1.0, 5.287, 31.7, 300.0])
@pytest.mark.parametrize("delta", [1e-12, 1e-5, 1e-3, 0.3])
def test_epsilon_agrees_with_dp_accounting(mu, delta):
    reference = gaussian_mechanism.get_epsilon_gaussian(1 / mu, delta)
    assert gaussian_epsilon(mu, delta) == pytest.approx(reference, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("mu", [0.5, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 4.0])
def test_delta_agrees_with_the_formula_written_out(mu, epsilon):
    def phi(x):
        return math.erfc(-x / math.sqrt(2)) / 2

    written_out = phi(mu / 2 - epsilon / mu) - math.exp(epsilon) * phi(-mu / 2 - epsilon / mu)
    assert gaussian_delta(mu, epsilon) == pytest.approx(written_out, rel=1e-9, abs=1e-15)


@settings(deadline=None, database=None, max_examples=200)
@given(st.floats(1e-3, 1e3), st.floats(-12, -0.5))
def test_epsilon_is_the_smallest_that_keeps_delta(mu, log_delta):
    delta = 10**log_delta
    epsilon = gaussian_epsilon(mu, delta)
    assert gaussian_delta(mu, epsilon) <= delta
    if epsilon > 0:
        assert gaussian_delta(mu, epsilon) == pytest.approx(delta, rel=1e-6)
        assert gaussian_delta(mu, epsilon * (1 - 1e-6)) > delta


@settings(deadline=None, database=None, max_examples=100)
@given(st.floats(1e-6, 1e5), st.floats(-12, -0.5))
def test_mu_is_the_largest_that_keeps_epsilon(epsilon, log_delta):
    delta = 10**log_delta
    mu = gaussian_mu(epsilon, delta)
    assert gaussian_epsilon(mu, delta) <= epsilon + 1e-12 * (1 + epsilon)
    assert gaussian_epsilon(mu * (1 + 1e-6), delta) > epsilon
    assert gaussian_epsilon(mu, delta) == pytest.approx(epsilon, rel=1e-6, abs=1e-9)


def test_no_release_costs_nothing():
    assert gaussian_delta(0.0, 0.0) == 0.0
    assert gaussian_epsilon(0.0, 1e-300) == 0.0
    assert local_epsilon(event(), 0, REPLACE, 1e-5) == 0.0


@pytest.mark.parametrize("mu", [5e-324, 1e-300, 1e-12])
def test_tiny_mu_has_epsilon_zero(mu):
    assert gaussian_epsilon(mu, 1e-5) == 0.0


def test_epsilon_is_zero_exactly_up_to_the_mu_whose_delta_at_zero_is_delta():
    # At epsilon 0, delta is the total variation distance, 2 Phi(mu/2) - 1: 0.3829 for mu = 1.
    delta = math.erf(0.5 / math.sqrt(2))
    assert delta == pytest.approx(0.3829, abs=1e-4)
    assert gaussian_epsilon(1 - 1e-9, delta) == 0.0
    assert gaussian_epsilon(1 + 1e-3, delta) > 0.0
    assert gaussian_mu(0.0, delta) == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("mu", [1e3, 1e5, 1e7])
def test_huge_mu_approaches_half_its_square_plus_mu_times_the_quantile(mu):
    quantile = 4.26489  # of the standard normal at 1 - 1e-5
    assert gaussian_epsilon(mu, 1e-5) == pytest.approx(mu**2 / 2 + mu * quantile, rel=1e-5)


def test_infinite_epsilon_means_no_limit():
    assert gaussian_mu(math.inf, 1e-5) == math.inf


def test_composition_is_the_root_of_the_sum_of_squares():
    # Under replace-one mu = 2 / 8, 2 x 2 / 8 and 2 / 4: squares 1/16, 1/4 and 1/4.
    releases = {event(): 4, event(samples=4): 1, event(4.0, "message", 9): 2}
    assert compose(releases, REPLACE) == pytest.approx(math.sqrt(4 / 16 + 1 / 4 + 2 / 4))
    assert compose(releases, ZERO) == pytest.approx(math.sqrt(4 / 16 + 1 / 4 + 2 / 4) / 2)


def test_composition_of_nothing_is_zero():
    assert compose({}, REPLACE) == 0.0


def test_order_of_releases_does_not_matter():
    events = [event(0.1 + 0.7 * i) for i in range(9)]
    forwards = compose(dict.fromkeys(events, 3), REPLACE)
    assert compose(dict.fromkeys(reversed(events), 3), REPLACE) == forwards


def test_equal_releases_compose_like_participations():
    composed = gaussian_epsilon(compose({event(): 9}, REPLACE), 1e-5)
    assert composed == pytest.approx(local_epsilon(event(), 9, REPLACE, 1e-5), rel=1e-12)


def test_honest_survivors_share_the_noise():
    together = local_epsilon(event(), 9, REPLACE, 1e-5, honest=9)
    assert together == pytest.approx(local_epsilon(event(), 1, REPLACE, 1e-5), rel=1e-12)


def test_unknown_event_raises():
    with pytest.raises(UnsupportedEventError, match="str"):
        compose({"sanitized": 1}, REPLACE)


@pytest.mark.parametrize("delta", [0.0, 1.0, 1.5, -1e-5, math.nan])
def test_delta_outside_the_open_interval_is_named(delta):
    with pytest.raises(ValueError, match=f"^delta={delta} must "):
        gaussian_epsilon(1.0, delta)
    with pytest.raises(ValueError, match=f"^delta={delta} must "):
        gaussian_mu(1.0, delta)
    with pytest.raises(ValueError, match=f"^delta={delta} must "):
        gaussian_mu(math.inf, delta)


@pytest.mark.parametrize("value", [-1.0, math.nan, -math.inf])
def test_negative_or_no_number_is_named(value):
    with pytest.raises(ValueError, match=f"^mu={value} must "):
        gaussian_epsilon(value, 1e-5)
    with pytest.raises(ValueError, match=f"^epsilon={value} must "):
        gaussian_mu(value, 1e-5)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"participations": -1}, "participations=-1"),
        ({"participations": 1.5}, "participations=1.5"),
        ({"participations": 1, "honest": 0}, "honest=0"),
    ],
)
def test_impossible_counts_are_named(arguments, name):
    with pytest.raises(ValueError, match=f"^{name} must "):
        local_epsilon(event(), relation=REPLACE, delta=1e-5, **arguments)
