import math

import numpy as np
import pytest
from scipy.special import ndtr

from fed_gswgan.accounting.report import (
    finite_arithmetic_log10_delta,
    log10_total_variation,
    reachable,
    sum_of_shares_log10_delta,
)
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


WIDEST = 24  # steps on either side of the centre


def law_of_rounded_shares(centres, stddev):
    """Return the law of the sum of round(x + s Z) over the centres, on whole numbers."""
    edges = np.arange(-WIDEST, WIDEST + 2) - 0.5
    found = np.ones(1)
    for centre in centres:
        found = np.convolve(found, np.diff(ndtr((edges - centre) / stddev)))
    return found  # of -WIDEST H .. WIDEST H


def law_of_one_gaussian(centres, stddev):
    """Return the law of the rounding of N(sum of x, H s^2) plus H - 1 uniforms, likewise.

    The rounding is one more uniform, so this is the law's density with H uniforms at whole numbers:
    the inverse of its characteristic function, exp(-2 pi^2 H s^2 t^2) sinc(t)^H with a phase.
    """
    honest, centre = len(centres), sum(centres)
    whole = np.arange(-WIDEST * honest, WIDEST * honest + 1)
    # t runs over all reals; beyond this many periods nothing is left at s = 0.25.
    frequencies = np.arange(-8, 8, 1 / (4 * WIDEST * honest))
    sizes = np.exp(-2 * np.pi**2 * honest * stddev**2 * frequencies**2)
    sizes *= np.sinc(frequencies) ** honest
    waves = np.cos(2 * np.pi * np.outer(whole - centre, frequencies))
    return waves @ sizes / (4 * WIDEST * honest)


def distinct_shifts(stddev, honest):
    """Return Theta: over tuples of whole numbers but for common shifts, constants left out."""
    reach, c = 12, 2 * np.pi**2 * stddev**2
    weights = np.exp(-c * np.arange(-reach, reach + 1.0) ** 2)
    of_sum = np.ones(1)
    for _ in range(honest):
        of_sum = np.convolve(of_sum, weights)
    middle = reach * honest
    shifts = np.arange(honest)
    total = (of_sum[middle + shifts] * np.exp(c * shifts**2 / honest)).sum()
    return max(total - 1, 0.0)


@pytest.mark.parametrize("honest", range(2, 9))
@pytest.mark.parametrize("stddev", [0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0])
def test_a_sum_of_rounded_shares_is_as_near_to_a_gaussian_as_the_lemma_says(honest, stddev):
    centres = np.random.default_rng(honest).uniform(-2, 2, honest)
    shares, gaussian = law_of_rounded_shares(centres, stddev), law_of_one_gaussian(centres, stddev)
    assert shares.sum() == pytest.approx(1)
    assert gaussian.sum() == pytest.approx(1)
    spread = stddev * math.sqrt(honest)
    largest = distinct_shifts(stddev, honest) / (spread * math.sqrt(2 * math.pi))
    assert np.abs(shares - gaussian).max() <= largest * (1 + 1e-6) + 1e-12
    distance = np.abs(shares - gaussian).sum() / 2
    if stddev >= 1:
        closed = 2.1 * honest * math.exp(-2 * (math.pi * stddev) ** 2 * (honest - 1) / honest)
        assert distinct_shifts(stddev, honest) <= closed + 1e-12
        assert distance <= 10 ** log10_total_variation(stddev, honest) + 1e-12
    if stddev <= 0.35 and honest <= 4:
        assert distance > 1e-5  # below half a step the shares do tell more


def test_two_steps_a_share_leave_nothing_of_the_rounding():
    assert 80_000 * 10 ** log10_total_variation(2.0, 5) < 1e-19
    assert log10_total_variation(2.0, 1000) < -27
    assert log10_total_variation(2.0, 1) == -math.inf
    for wrong in ((0.9, 10), (2.0, 10**6 + 1)):
        with pytest.raises(ValueError, match="share-steps="):
            log10_total_variation(*wrong)


def test_what_rounding_the_shares_adds_to_delta():
    event = Event(
        rows=40, numbers=113, extra=10, bounded="message", clipping_bound=1.0, noise_stddev=0.45,
        trust="secure-aggregation", honest=800,
    )  # fmt: skip
    added = sum_of_shares_log10_delta(event, 3 * event.size, 1.0)
    share_steps = 0.45 / 2**-3
    by_hand = log10_total_variation(share_steps, 800) + math.log10(3 * 4530 * (1 + math.e))
    assert added == pytest.approx(by_hand)
    assert added < -20
    assert sum_of_shares_log10_delta(event, 0, 1.0) == -math.inf


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
