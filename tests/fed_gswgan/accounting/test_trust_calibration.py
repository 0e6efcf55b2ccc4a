import math
from dataclasses import replace

import pytest

from fed_gswgan.accounting import calibrate
from fed_gswgan.accounting.calibrate import largest_count, smallest_noise
from fed_gswgan.accounting.trust import Exposure, SamplingMethod, TrustModel, privacy_spent
from fed_gswgan.privacy.events import NeighboringRelation, SanitizedGradientEvent

REPLACE, ZERO = NeighboringRelation.REPLACE_ONE, NeighboringRelation.ZERO_OUT
EVENT = SanitizedGradientEvent(samples=1, clipping="sample", clipping_bound=1.0, noise_stddev=8.0)
LOCAL = Exposure(trust=TrustModel.LOCAL, relation=REPLACE, participations=9)
SECURE = Exposure(trust=TrustModel.SECURE_AGGREGATION, relation=REPLACE, participations=9, honest=4)


def central(sampling, relation, rounds=200, probability=0.02):
    return Exposure(
        trust=TrustModel.CENTRAL,
        relation=relation,
        rounds=rounds,
        sampling=sampling,
        sampling_probability=probability,
    )


CENTRAL = [
    central(SamplingMethod.POISSON, ZERO),
    central(SamplingMethod.FIXED_SIZE, REPLACE),
    central(SamplingMethod.REVEALED, REPLACE),
]


def epsilon_of(event, exposure, delta):
    return privacy_spent(event, exposure, delta).epsilon


# (epsilon, delta, mu): the mu a budget allows, inverted from the exact Gaussian elsewhere too.
@pytest.mark.parametrize(
    ("epsilon", "delta", "mu"),
    [
        (1.0, 0.00115, 0.39447482718017124),
        (1.0, 1e-6, 0.23670438066343416),
        (10.0, 1e-6, 1.8481322057667193),
    ],
)
def test_known_budgets(epsilon, delta, mu):
    # One row, nine replies under replace-one: noise = 2 sqrt(9) / mu.
    assert smallest_noise(EVENT, LOCAL, delta, epsilon) == pytest.approx(6 / mu, rel=1e-6)
    assert smallest_noise(EVENT, SECURE, delta, epsilon) == pytest.approx(3 / mu, rel=1e-6)
    # Each reply costs (2 / 8)^2 of the budget's square.
    assert largest_count(EVENT, LOCAL, delta, epsilon) == math.floor(16 * mu**2)
    assert largest_count(EVENT, SECURE, delta, epsilon) == math.floor(64 * mu**2)


@pytest.mark.parametrize("exposure", [LOCAL, SECURE, *CENTRAL])
@pytest.mark.parametrize("epsilon", [0.3, 4.0, 60.0])
def test_the_noise_found_is_enough_and_a_little_less_is_not(exposure, epsilon):
    noise = smallest_noise(EVENT, exposure, 1e-5, epsilon)
    assert epsilon_of(replace(EVENT, noise_stddev=noise), exposure, 1e-5) <= epsilon
    less = replace(EVENT, noise_stddev=noise * (1 - 2e-3))
    assert epsilon_of(less, exposure, 1e-5) > epsilon


@pytest.mark.parametrize("exposure", [LOCAL, SECURE, *CENTRAL])
@pytest.mark.parametrize("epsilon", [1.3, 3.0])
def test_the_count_found_is_affordable_and_a_larger_is_not(exposure, epsilon):
    count = largest_count(EVENT, exposure, 1e-5, epsilon)
    assert epsilon_of(EVENT, exposure.with_count(count), 1e-5) <= epsilon
    more = exposure.with_count(count + 1 + count // 1000)
    assert epsilon_of(EVENT, more, 1e-5) > epsilon


def test_the_papers_settings_reach_ten_with_two_and_a_half_times_the_noise():
    rounds = central(SamplingMethod.FIXED_SIZE, REPLACE, 20000, 1e-3)
    found = smallest_noise(replace(EVENT, samples=32), rounds, 1e-5, 10.0)
    assert found / 2 == pytest.approx(2.63, abs=0.005)


@pytest.mark.parametrize("exposure", [LOCAL, SECURE, *CENTRAL])
def test_where_one_release_costs_more_none_is_affordable(exposure):
    assert largest_count(replace(EVENT, noise_stddev=0.01), exposure, 1e-5, 0.5) == 0


def test_the_search_for_rounds_has_an_end(monkeypatch):
    monkeypatch.setattr(calibrate, "LARGEST_ROUNDS", 1000)
    quiet = replace(EVENT, noise_stddev=1e3)
    assert largest_count(quiet, central(SamplingMethod.FIXED_SIZE, REPLACE), 1e-5, 1.0) == 1000


@pytest.mark.parametrize(
    "exposure", [LOCAL.with_count(0), central(SamplingMethod.POISSON, ZERO, 9, 1e-6)]
)
def test_who_is_hardly_selected_needs_no_noise(exposure):
    with pytest.raises(ValueError, match=r"^delta=1e-05 is met without noise"):
        smallest_noise(EVENT, exposure, 1e-5, 1.0)


def test_the_published_formula_is_not_inverted():
    paper = Exposure(
        trust=TrustModel.PAPER,
        relation=REPLACE,
        rounds=9,
        sampling=SamplingMethod.FIXED_SIZE,
        sampling_probability=0.1,
    )
    for find in (smallest_noise, largest_count):
        with pytest.raises(ValueError, match=r"^trust=paper"):
            find(EVENT, paper, 1e-5, 1.0)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_target_is_named(epsilon):
    for find in (smallest_noise, largest_count):
        with pytest.raises(ValueError, match=f"^epsilon={epsilon} must"):
            find(EVENT, LOCAL, 1e-5, epsilon)
