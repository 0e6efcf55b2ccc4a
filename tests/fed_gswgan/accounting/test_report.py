import math

import pytest

from fed_gswgan.accounting.report import finite_arithmetic_log10_delta, reachable
from fed_gswgan.privacy.mechanism import Event, NeighboringRelation
from fed_gswgan.privacy.noise import MAX_DEPTH

REPLACE, ZERO = NeighboringRelation.REPLACE_ONE, NeighboringRelation.ZERO_OUT
EVENT = Event(rows=32, numbers=1, bounded="sample", clipping_bound=1.0, noise_stddev=2.14)


def test_the_demos_delta_is_not_touched_by_finite_arithmetic():
    # 240 participations of 32 rows at noise 2.14: epsilon 3702 at delta 1e-5.
    coordinates = 240 * 32 * 784
    added = finite_arithmetic_log10_delta(coordinates, 3702)
    assert added < math.log10(1e-5 / 100)
    # 1 + e^3702 is 10^1607.8, tau is coordinates x 2^(24 - depth).
    by_hand = 1607.76 + math.log10(coordinates) - (MAX_DEPTH - 24) * 0.30103
    assert added == pytest.approx(by_hand, abs=0.1)


@pytest.mark.parametrize(
    ("coordinates", "epsilon", "expected"),
    [
        (0, 3702, -math.inf),
        (1, 0, math.log10(2) * (25 - MAX_DEPTH)),  # 1 + e^0 = 2
        (1000, 0, math.log10(2) * (25 - MAX_DEPTH) + 3),
    ],
)
def test_what_finite_arithmetic_adds_by_hand(coordinates, epsilon, expected):
    assert finite_arithmetic_log10_delta(coordinates, epsilon) == pytest.approx(expected)


def test_an_epsilon_that_the_draws_do_not_reach_has_no_delta():
    assert finite_arithmetic_log10_delta(1, 20_000) > 0


@pytest.mark.parametrize(
    ("coordinates", "epsilon"), [(-1, 1.0), (2.5, 1.0), (1, -1.0), (1, math.inf)]
)
def test_impossible_counts_and_epsilons_are_refused(coordinates, epsilon):
    with pytest.raises(ValueError, match=r"^(coordinates|epsilon)="):
        finite_arithmetic_log10_delta(coordinates, epsilon)


# Computed elsewhere, of 1000 rounds: (population, cohort, relation, replies, local, local message,
# secure aggregation, central).
@pytest.mark.parametrize(
    ("population", "cohort", "relation", "replies", "epsilons"),
    [
        (100_000, 100, REPLACE, 1, (37.1, 4.29, 2.4, 0.0699)),
        (100_000, 100, ZERO, 1, (14.8, 1.97, 1.12, 0.0263)),
        (100_000, 1000, REPLACE, 10, (214, 17.1, 2.4, 0.2)),
        (3400, 100, REPLACE, 30, (524, 31, 15.1, 2.13)),
        (3400, 100, ZERO, 30, (157, 12, 6.23, 0.764)),
        (870, 10, REPLACE, 12, (226, 15.1, 37.7, 6.94)),
    ],
)
def test_known_values(population, cohort, relation, replies, epsilons):
    found = reachable(population, cohort, 1000, EVENT, relation)
    assert found.participations == replies
    assert found.delta == pytest.approx(population**-1.1)
    assert (
        found.local_sample,
        found.local_message,
        found.secure_aggregation,
        found.central,
    ) == pytest.approx(epsilons, rel=0.013)


def test_a_population_below_the_cohort_takes_part_as_a_whole():
    found = reachable(50, 100, 7, EVENT, REPLACE)
    assert (found.cohort, found.participations) == (50, 7)
    # Everyone in every round: a sum with the noise of 50 is what 50 honest clients would add.
    assert found.central < found.secure_aggregation < found.local_sample


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((1, 1, 1), "population=1"), ((9, 0, 1), "cohort=0"), ((9, 1, 0), "rounds=0")],
)
def test_nonsense_is_named(arguments, said):
    with pytest.raises(ValueError, match=f"^{said} must"):
        reachable(*arguments, EVENT, REPLACE)
