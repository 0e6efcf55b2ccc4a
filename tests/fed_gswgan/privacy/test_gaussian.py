import math

import mpmath
import numpy as np
import pytest
from dp_accounting import gaussian_mechanism
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_gswgan.privacy.gaussian import (
    gaussian_delta,
    gaussian_epsilon,
    gaussian_log_delta,
    gaussian_mu,
)

MUS = [1e-12, 1e-7, 1e-3, 0.3, 1.0, 3.0, 37.0, 1e4, 1e9]
DELTAS = [1e-300, 1e-100, 1e-30, 1e-13, 1e-5, 0.03, 0.5]


def exact_delta(mu, epsilon):
    """The formula as it is written, in so many digits that its cancellation does not matter."""
    with mpmath.workdps(80):
        mu, epsilon = mpmath.mpf(mu), mpmath.mpf(epsilon)
        x, y = epsilon / mu - mu / 2, epsilon / mu + mu / 2
        if y < 1e4:
            second = mpmath.exp(epsilon) * mpmath.ncdf(-y)
        else:  # the asymptotic series of ncdf, and e^epsilon phi(y) = phi(x)
            second = mpmath.npdf(x) * (1 / y - 1 / y**3 + 3 / y**5 - 15 / y**7)
        return mpmath.ncdf(-x) - second


def exact_root(excess, near):
    near = mpmath.mpf(near)
    with mpmath.workdps(60):
        return mpmath.findroot(
            lambda value: mpmath.log(excess(value)),
            (near * (1 - mpmath.mpf(10) ** -12), near * (1 + mpmath.mpf(10) ** -12)),
            solver="secant",
            verify=False,
        )


@pytest.mark.parametrize("mu", MUS)
@pytest.mark.parametrize("delta", DELTAS)
def test_every_digit_agrees_with_mpmath(mu, delta):
    epsilon = gaussian_epsilon(mu, delta)
    if epsilon == 0:
        assert exact_delta(mu, 0) <= delta
        return
    assert float(gaussian_delta(mu, epsilon) / exact_delta(mu, epsilon)) == pytest.approx(
        1, abs=1e-12
    )
    exact = exact_root(lambda value: exact_delta(mu, value) / delta, epsilon)
    assert float(epsilon / exact) == pytest.approx(1, abs=1e-13)
    found = gaussian_mu(epsilon, delta)
    exact = exact_root(lambda value: exact_delta(value, epsilon) / delta, found)
    assert float(found / exact) == pytest.approx(1, abs=1e-13)


@pytest.mark.parametrize("mu", [0.03, 1.0, 31.7])
@pytest.mark.parametrize("delta", [1e-12, 1e-5, 0.3])
def test_epsilon_agrees_with_dp_accounting(mu, delta):
    reference = gaussian_mechanism.get_epsilon_gaussian(1 / mu, delta)
    assert gaussian_epsilon(mu, delta) == pytest.approx(reference, rel=1e-9, abs=1e-12)


@settings(deadline=None, database=None, max_examples=200)
@given(st.floats(-12, 9), st.floats(-300, -0.3))
def test_epsilon_is_the_smallest_and_mu_the_largest(log_mu, log_delta):
    mu, delta = 10**log_mu, 10**log_delta
    epsilon = gaussian_epsilon(mu, delta)
    assert gaussian_log_delta(mu, epsilon) <= math.log(delta)
    if epsilon > 0:
        assert gaussian_log_delta(mu, epsilon * (1 - 1e-14)) > math.log(delta)
    largest = gaussian_mu(epsilon, delta)
    assert gaussian_log_delta(largest, epsilon) <= math.log(delta)
    assert gaussian_log_delta(largest * (1 + 1e-14), epsilon) > math.log(delta)


def test_arrays_give_what_numbers_give():
    mus, epsilons = np.array([0.1, 5.0, 5.0]), np.array([2.0, 1.0, 40.0])
    one_by_one = [gaussian_log_delta(mu, e) for mu, e in zip(mus, epsilons, strict=True)]
    assert gaussian_log_delta(mus, epsilons) == pytest.approx(one_by_one, rel=1e-14)


# From another program: (epsilon, delta, mu).
@pytest.mark.parametrize(
    ("epsilon", "delta", "mu"),
    [
        (1.0, 0.00115, 0.39447482718017124),
        (1.0, 1e-6, 0.23670438066343416),
        (10.0, 1e-6, 1.8481322057667193),
    ],
)
def test_mu_of_the_known_values(epsilon, delta, mu):
    assert gaussian_mu(epsilon, delta) == pytest.approx(mu, rel=1e-6)


def test_epsilon_is_zero_up_to_the_total_variation_distance():
    # At epsilon 0, delta is 2 Phi(mu/2) - 1: 0.3829 for mu = 1.
    delta = math.erf(0.5 / math.sqrt(2))
    assert delta == pytest.approx(0.3829, abs=1e-4)
    assert gaussian_epsilon(1 - 1e-9, delta) == 0.0
    assert gaussian_epsilon(1 + 1e-9, delta) > 0.0
    assert gaussian_mu(0.0, delta) == pytest.approx(1.0, rel=1e-14)


def test_ends_of_the_range():
    assert gaussian_delta(0.0, 0.0) == 0.0
    assert gaussian_epsilon(0.0, 1e-300) == 0.0
    assert gaussian_epsilon(5e-324, 1e-5) == 0.0
    assert gaussian_mu(math.inf, 1e-5) == math.inf
    assert gaussian_mu(0.0, 1e-300) == pytest.approx(math.sqrt(2 * math.pi) * 1e-300)
    assert 0 < gaussian_mu(0.0, 1e-320) < 1e-319  # subnormal
    assert 0 < gaussian_epsilon(1e-310, 1e-315) < 1e-308
    assert gaussian_epsilon(1e150, 1e-5) == pytest.approx(5e299)
    assert gaussian_epsilon(1e160, 1e-5) == math.inf  # more than a float can say
    assert gaussian_mu(1e308, 1e-5) < math.sqrt(2e308)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_delta_outside_the_open_interval_is_named(delta):
    for function, value in ((gaussian_epsilon, 1.0), (gaussian_mu, 1.0), (gaussian_mu, math.inf)):
        with pytest.raises(ValueError, match=f"^delta={delta} must "):
            function(value, delta)


@pytest.mark.parametrize("value", [-1.0, math.nan, -math.inf])
def test_negative_or_no_number_is_named(value):
    with pytest.raises(ValueError, match=f"^mu={value} must "):
        gaussian_epsilon(value, 1e-5)
    with pytest.raises(ValueError, match=f"^epsilon={value} must "):
        gaussian_mu(value, 1e-5)
