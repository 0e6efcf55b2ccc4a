import math

import pytest

from fed_gswgan.accounting.calibrate import noise_for
from fed_gswgan.accounting.trust import DeclaredRelease, SamplingMethod, epsilon_of
from fed_gswgan.privacy.events import NeighboringRelation
from fed_gswgan.privacy.gaussian import gaussian_mu

ZERO = NeighboringRelation.ZERO_OUT


def gaussians(noise):
    return (DeclaredRelease(what="a sum", mu=1 / noise, rounds=4, relation=ZERO),)


def sampled_and_not(noise):
    sampled = DeclaredRelease(
        what="gradients",
        mu=1 / noise,
        rounds=300,
        relation=ZERO,
        sampling=SamplingMethod.POISSON,
        sampling_probability=0.01,
    )
    return (sampled, DeclaredRelease(what="a sum", mu=0.3 / noise, rounds=1, relation=ZERO))


@pytest.mark.parametrize("releases_at", [gaussians, sampled_and_not])
@pytest.mark.parametrize("epsilon", [0.5, 10.0, 40.0])
def test_the_noise_found_is_enough_and_a_thousandth_less_is_not(releases_at, epsilon):
    noise = noise_for(releases_at, epsilon, 1e-5)
    assert epsilon_of(releases_at(noise), 1e-5) <= epsilon
    assert epsilon_of(releases_at(noise * (1 - 1e-3)), 1e-5) > epsilon


@pytest.mark.parametrize("epsilon", [1e-4, 1.0, 10.0, 500.0])
def test_gaussians_have_a_closed_form(epsilon):
    exact = 2 / gaussian_mu(epsilon, 1e-5)
    assert exact <= noise_for(gaussians, epsilon, 1e-5) <= exact * (1 + 1e-3)


def test_a_target_that_another_release_already_passes_is_refused():
    def with_a_costly_release(noise):
        fixed = DeclaredRelease(what="a mean", mu=3.0, rounds=1, relation=ZERO)
        return (*gaussians(noise), fixed)

    with pytest.raises(ValueError, match=r"^epsilon=1.0 is met by no noise"):
        noise_for(with_a_costly_release, 1.0, 1e-5)


def test_a_target_that_is_met_without_noise_is_refused():
    def unaffected(noise):
        return (DeclaredRelease(what="a mean", mu=0.1, rounds=1, relation=ZERO),)

    with pytest.raises(ValueError, match=r"^epsilon=1.0 is met without noise"):
        noise_for(unaffected, 1.0, 1e-5)


@pytest.mark.parametrize(
    ("epsilon", "delta", "said"),
    [
        (0.0, 1e-5, "epsilon=0.0 must"),
        (math.inf, 1e-5, "epsilon=inf must"),
        (1.0, 0.0, "delta=0.0 must"),
    ],
)
def test_nonsense_is_named(epsilon, delta, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        noise_for(gaussians, epsilon, delta)
