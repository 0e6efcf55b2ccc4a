import math
from dataclasses import replace

import pytest

from fed_gswgan.accounting import calibrate
from fed_gswgan.accounting.calibrate import largest_count, noise_for, remedies, smallest_noise
from fed_gswgan.accounting.trust import (
    DeclaredRelease,
    Exposure,
    SamplingMethod,
    TrustModel,
    epsilon_of,
    privacy_spent,
)
from fed_gswgan.privacy.gaussian import gaussian_epsilon, gaussian_mu
from fed_gswgan.privacy.mechanism import Event, NeighboringRelation, compose

REPLACE, ZERO = NeighboringRelation.REPLACE_ONE, NeighboringRelation.ZERO_OUT
DELTA = 1e-5
EVENT = Event(rows=1, numbers=1, bounded="sample", clipping_bound=1.0, noise_stddev=8.0)
LOCAL = Exposure(trust=TrustModel.LOCAL, relation=REPLACE, participations=9)
SECURE = Exposure(trust=TrustModel.SECURE_AGGREGATION, relation=REPLACE, participations=9, honest=4)


def central(sampling, relation, rounds=200, probability=0.02, trust=TrustModel.CENTRAL):
    return Exposure(
        trust=trust,
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


def spent(event, exposure):
    return privacy_spent(event, exposure, DELTA).epsilon


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
@pytest.mark.parametrize("epsilon", [0.3, 60.0])
def test_the_noise_found_is_enough_and_a_little_less_is_not(exposure, epsilon):
    noise = smallest_noise(EVENT, exposure, DELTA, epsilon)
    assert spent(replace(EVENT, noise_stddev=noise), exposure) <= epsilon
    assert spent(replace(EVENT, noise_stddev=noise * (1 - 2e-3)), exposure) > epsilon


@pytest.mark.parametrize("exposure", [LOCAL, SECURE, *CENTRAL])
def test_the_count_found_is_affordable_and_a_larger_is_not(exposure):
    count = largest_count(EVENT, exposure, DELTA, 1.3)
    assert spent(EVENT, exposure.with_count(count)) <= 1.3
    assert spent(EVENT, exposure.with_count(count + 1 + count // 1000)) > 1.3
    assert largest_count(replace(EVENT, noise_stddev=0.01), exposure, DELTA, 1.3) == 0


def test_the_papers_settings_reach_ten_with_two_and_a_half_times_the_noise():
    rounds = central(SamplingMethod.FIXED_SIZE, REPLACE, 20000, 1e-3)
    found = smallest_noise(replace(EVENT, rows=32), rounds, DELTA, 10.0)
    assert found / 2 == pytest.approx(2.63, abs=0.005)


def test_the_search_for_rounds_has_an_end(monkeypatch):
    monkeypatch.setattr(calibrate, "LARGEST_ROUNDS", 1000)
    quiet = replace(EVENT, noise_stddev=1e3)
    assert largest_count(quiet, central(SamplingMethod.FIXED_SIZE, REPLACE), DELTA, 1.0) == 1000


@pytest.mark.parametrize(
    "exposure", [LOCAL.with_count(0), central(SamplingMethod.POISSON, ZERO, 9, 1e-6)]
)
def test_who_is_hardly_selected_needs_no_noise(exposure):
    with pytest.raises(ValueError, match=r"^delta=1e-05 is met without noise"):
        smallest_noise(EVENT, exposure, DELTA, 1.0)


@pytest.mark.parametrize(
    ("exposure", "epsilon", "delta", "said"),
    [
        (LOCAL, 1e-300, 1e-200, "epsilon=1e-300 at delta=1e-200 for samples=1, participations=9"),
        (LOCAL, 1e-300, 5e-324, "epsilon=1e-300 at delta=5e-324 for samples=1, participations=9"),
        (LOCAL, 1e30, 0.5, "epsilon=1e[+]30 at delta=0.5 .* is met without noise"),
        (CENTRAL[0], 1e-300, 1e-200, "epsilon=1e-300 at delta=1e-200 for samples=1, rounds=200"),
        (CENTRAL[2], 1e-300, 1e-200, "epsilon=1e-300 at delta=1e-200 for samples=1, rounds=200"),
    ],
)
def test_noise_that_no_release_can_have_is_refused(exposure, epsilon, delta, said):
    with pytest.raises(ValueError, match=f"^{said}.* noise-stddev"):
        smallest_noise(EVENT, exposure, delta, epsilon)


def test_the_published_formula_is_not_inverted():
    paper = central(SamplingMethod.FIXED_SIZE, REPLACE, trust=TrustModel.PAPER)
    for find in (smallest_noise, largest_count):
        with pytest.raises(ValueError, match=r"^trust=paper"):
            find(EVENT, paper, DELTA, 1.0)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_target_is_named(epsilon):
    for find in (smallest_noise, largest_count):
        with pytest.raises(ValueError, match=f"^epsilon={epsilon} must"):
            find(EVENT, LOCAL, DELTA, epsilon)
    with pytest.raises(ValueError, match=f"^epsilon={epsilon} must"):
        noise_for(gaussians, epsilon, DELTA)


# -- the noise of declared releases


def declared(mu, rounds=1, **settings):
    return DeclaredRelease(what="a sum", mu=mu, rounds=rounds, relation=ZERO, **settings)


def gaussians(noise):
    return (declared(1 / noise, 4),)


def sampled_and_not(noise):
    poisson = {"sampling": SamplingMethod.POISSON, "sampling_probability": 0.01}
    return (declared(1 / noise, 300, **poisson), declared(0.3 / noise))


def test_the_noise_for_declared_releases_is_enough_and_hardly_more():
    noise = noise_for(sampled_and_not, 4.0, DELTA)
    assert epsilon_of(sampled_and_not(noise), DELTA) <= 4
    assert epsilon_of(sampled_and_not(noise * (1 - 1e-3)), DELTA) > 4


@pytest.mark.parametrize("epsilon", [1e-4, 1.0, 500.0])
def test_the_noise_for_gaussians_has_a_closed_form(epsilon):
    exact = 2 / gaussian_mu(epsilon, DELTA)
    assert exact * (1 - 1e-12) <= noise_for(gaussians, epsilon, DELTA) <= exact * (1 + 1e-3)


@pytest.mark.parametrize(
    ("releases_at", "said"),
    [
        (lambda noise: (*gaussians(noise), declared(3.0)), "needs noise-stddev=.* or more"),
        (lambda noise: (declared(0.1),), "is met without noise"),
    ],
)
def test_a_target_that_no_noise_or_any_noise_meets_is_refused(releases_at, said):
    with pytest.raises(ValueError, match=f"^epsilon=1.0 at delta=1e-05 {said}"):
        noise_for(releases_at, 1.0, DELTA)


# -- remedies

# mu = 2 x sqrt(4) / 8 = 0.5 under replace-one, 0.25 when the whole message is clipped.
REPLY = replace(EVENT, rows=4)
EPSILON = gaussian_epsilon(1.01, DELTA)


def test_remedies_by_hand():
    found = remedies(REPLY, 3.0, REPLACE, DELTA, EPSILON)  # 36 replies: mu = 0.5 x 6 = 3
    assert found.epsilon == EPSILON
    assert found.participations == 4  # (1.01 / 0.5)^2 = 4.08
    assert found.participations_message_clipping == 16  # (1.01 / 0.25)^2 = 16.3
    assert found.noise_stddev == pytest.approx(8 * 3 / 1.01)
    assert found.honest == 9  # (3 / 1.01)^2 = 8.8


@pytest.mark.parametrize("relation", [REPLACE, ZERO])
@pytest.mark.parametrize("epsilon", [0.7, 10.0, 100.0])
def test_every_remedy_reaches_the_target_and_a_little_less_does_not(relation, epsilon):
    def epsilon_after(count, event=REPLY, honest=1):
        return gaussian_epsilon(compose({event: count}, relation) / math.sqrt(honest), DELTA)

    found = remedies(REPLY, compose({REPLY: 500}, relation), relation, DELTA, epsilon)
    message = replace(REPLY, bounded="message")
    quieter = replace(REPLY, noise_stddev=found.noise_stddev * 0.999)
    louder = replace(REPLY, noise_stddev=found.noise_stddev * (1 + 1e-9))
    by_message = found.participations_message_clipping
    enough = [
        epsilon_after(found.participations),
        epsilon_after(by_message, message),
        epsilon_after(500, louder),
        epsilon_after(500, honest=found.honest),
    ]
    too_little = [
        epsilon_after(found.participations + 1),
        epsilon_after(by_message + 1, message),
        epsilon_after(500, quieter),
    ]
    if found.honest > 1:
        too_little.append(epsilon_after(500, honest=found.honest - 1))
    assert max(enough) <= epsilon < min(too_little)


def test_remedies_where_one_reply_costs_more_or_nothing_was_spent():
    found = remedies(REPLY, 1.5, REPLACE, DELTA, gaussian_epsilon(0.4, DELTA))
    assert found.participations == 0
    assert found.participations_message_clipping == 2  # (0.4 / 0.25)^2 = 2.56
    found = remedies(REPLY, 0.0, REPLACE, DELTA, EPSILON)
    assert (found.participations, found.honest, found.noise_stddev) == (4, 1, 0.0)
