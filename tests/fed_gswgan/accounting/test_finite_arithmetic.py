import math

import pytest

from fed_gswgan.accounting.report import finite_arithmetic_log10_delta
from fed_gswgan.privacy.rounded_gaussian import MAX_DEPTH

PIXELS = 28 * 28


def test_the_demos_delta_is_not_touched():
    """240 participations of 32 rows at noise 2.14: epsilon 3702 at delta 1e-5."""
    added = finite_arithmetic_log10_delta(240 * 32 * PIXELS, 3702)
    assert added < math.log10(1e-5 / 100)
    # 1 + e^3702 is 10^1607.8, tau is 6.0e6 x 2^(24 - 16128).
    by_hand = 1607.76 + math.log10(240 * 32 * PIXELS) - (MAX_DEPTH - 24) * 0.30103
    assert added == pytest.approx(by_hand, abs=0.1)


def test_a_thousand_users_lifetimes_at_ten_thousand_are_not_touched_either():
    assert finite_arithmetic_log10_delta(10**12, 10_000) < -400


def test_small_epsilon_costs_twice_the_distance():
    tau = math.log10(2) * (24 - MAX_DEPTH)
    assert finite_arithmetic_log10_delta(1, 0) == pytest.approx(tau + math.log10(2), rel=1e-12)


def test_it_grows_with_coordinates_and_with_epsilon():
    one = finite_arithmetic_log10_delta(1000, 5)
    assert finite_arithmetic_log10_delta(10_000, 5) == pytest.approx(one + 1, abs=1e-9)
    assert finite_arithmetic_log10_delta(1000, 5 + math.log(10)) > one + 0.99


def test_an_epsilon_that_the_draws_do_not_reach_is_said_to_be_without_a_delta():
    assert finite_arithmetic_log10_delta(1, 20_000) > 0


def test_nothing_released_adds_nothing():
    assert finite_arithmetic_log10_delta(0, 3702) == -math.inf


@pytest.mark.parametrize(
    ("coordinates", "epsilon"), [(-1, 1.0), (2.5, 1.0), (1, -1.0), (1, math.inf)]
)
def test_counts_and_epsilons_that_cannot_be_are_refused(coordinates, epsilon):
    with pytest.raises(ValueError, match=r"^(coordinates|epsilon)="):
        finite_arithmetic_log10_delta(coordinates, epsilon)
