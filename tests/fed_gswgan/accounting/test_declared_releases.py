import math

import pytest
from dp_accounting import dp_event, privacy_accountant
from dp_accounting.pld import pld_privacy_accountant

from fed_gswgan.accounting.sampled import fixed_size_epsilon, poisson_epsilon, revealed_epsilon
from fed_gswgan.accounting.trust import DeclaredRelease, SamplingMethod, epsilon_of
from fed_gswgan.privacy.events import NeighboringRelation
from fed_gswgan.privacy.gaussian import gaussian_epsilon

REPLACE, ZERO = NeighboringRelation.REPLACE_ONE, NeighboringRelation.ZERO_OUT
POISSON, FIXED = SamplingMethod.POISSON, SamplingMethod.FIXED_SIZE
REVEALED = SamplingMethod.REVEALED


def release(mu, rounds=1, sampling=None, probability=1.0, relation=ZERO):
    return DeclaredRelease(
        what="a sum",
        mu=mu,
        rounds=rounds,
        relation=relation,
        sampling=sampling,
        sampling_probability=probability,
    )


def dp_accountings_epsilon(releases, delta):
    events = [
        dp_event.SelfComposedDpEvent(
            dp_event.PoissonSampledDpEvent(
                release.sampling_probability, dp_event.GaussianDpEvent(1 / release.mu)
            )
            if release.sampling
            else dp_event.GaussianDpEvent(1 / release.mu),
            release.rounds,
        )
        for release in releases
    ]
    accountant = pld_privacy_accountant.PLDAccountant(
        privacy_accountant.NeighboringRelation.ADD_OR_REMOVE_ONE
    )
    accountant.compose(dp_event.ComposedDpEvent(events))
    return accountant.get_epsilon(delta)


@pytest.mark.parametrize(
    "releases",
    [
        (release(1.0, 500, POISSON, 0.01), release(0.8)),
        (release(0.5), release(1.5, 200, POISSON, 0.02)),
        (release(2.5, 40, POISSON, 0.05), release(0.9, 700, POISSON, 0.004)),
        (release(1.1, 300, POISSON, 0.01), release(0.3, 4), release(2.0, 9, POISSON, 0.1)),
        (release(3.0), release(0.4, 50, POISSON, 0.001)),
    ],
)  # fmt: skip
def test_unlike_releases_under_zero_out_agree_with_dp_accounting(releases):
    reference = dp_accountings_epsilon(releases, 1e-5)
    assert reference > 1
    assert epsilon_of(releases, 1e-5) == pytest.approx(reference, rel=1e-3)


def test_releases_without_sampling_are_one_gaussian():
    found = epsilon_of((release(0.3, 16), release(0.5)), 1e-5)
    assert found == pytest.approx(gaussian_epsilon(1.3, 1e-5), rel=1e-12)


@pytest.mark.parametrize(
    ("sampling", "relation", "alone"),
    [(POISSON, ZERO, poisson_epsilon), (FIXED, REPLACE, fixed_size_epsilon)],
)
def test_a_split_release_costs_what_the_whole_one_does(sampling, relation, alone):
    parts = tuple(release(0.9, rounds, sampling, 0.02, relation) for rounds in (30, 1, 169))
    whole = alone(0.9, 0.02, 200, 1e-6)
    assert epsilon_of(parts, 1e-6) == pytest.approx(whole, rel=6e-4)
    assert epsilon_of((release(0.9, 200, sampling, 0.02, relation),), 1e-6) == whole


@pytest.mark.parametrize(("sampling", "relation"), [(POISSON, ZERO), (FIXED, REPLACE)])
def test_order_does_not_matter_and_nothing_is_free(sampling, relation):
    sampled = release(1.2, 300, sampling, 0.01, relation)
    whole = release(0.6, 1, None, 1.0, relation)
    both = epsilon_of((sampled, whole), 1e-5)
    assert both == pytest.approx(epsilon_of((whole, sampled), 1e-5), rel=1e-9)
    assert both > max(epsilon_of((sampled,), 1e-5), epsilon_of((whole,), 1e-5)) * 1.01
    # Half of delta for either is a bound that any sequence meets.
    assert both < epsilon_of((sampled,), 5e-6) + epsilon_of((whole,), 5e-6)


@pytest.mark.parametrize(("sampling", "relation"), [(POISSON, ZERO), (FIXED, REPLACE)])
def test_a_hardly_sampled_release_adds_next_to_nothing_to_a_gaussian(sampling, relation):
    rare = release(1.0, 1, sampling, 1e-6, relation)
    found = epsilon_of((rare, release(1.5, 1, None, 1.0, relation)), 1e-5)
    exact = gaussian_epsilon(1.5, 1e-5)
    assert exact * (1 - 1e-9) <= found <= exact * (1 + 2e-3)


@pytest.mark.parametrize(("sampling", "relation"), [(POISSON, ZERO), (FIXED, REPLACE)])
def test_an_almost_certain_selection_is_the_gaussian(sampling, relation):
    parts = (
        release(0.5, 4, sampling, 1 - 1e-9, relation),
        release(0.75, 1, None, 1.0, relation),
    )
    found = epsilon_of(parts, 1e-5)
    assert found == pytest.approx(gaussian_epsilon(1.25, 1e-5), rel=1e-3)


def test_a_revealed_selection_is_counted_alone():
    alone = release(0.8, 50, REVEALED, 0.1, REPLACE)
    assert epsilon_of((alone,), 1e-5) == revealed_epsilon(0.8, 0.1, 50, 1e-5)
    with pytest.raises(ValueError, match=r"^sampling=revealed in 2 releases do not compose"):
        epsilon_of((alone, alone), 1e-5)


def test_different_relations_and_no_release_are_refused():
    for releases in ((release(1.0), release(1.0, relation=REPLACE)), ()):
        with pytest.raises(ValueError, match="no common epsilon"):
            epsilon_of(releases, 1e-5)


def test_two_kinds_of_sampling_are_refused():
    mixed = (release(1.0, 5, POISSON, 0.1), release(1.0, 5, REVEALED, 0.1))
    with pytest.raises(ValueError, match=r"^sampling=poisson, revealed in 2 releases"):
        epsilon_of(mixed, 1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0.0,), "mu=0.0 must"),
        ((math.inf,), "mu=inf must"),
        ((1.0, 0), "rounds=0 must"),
        ((1.0, 1, POISSON, 0.0), "sampling-probability=0.0 must"),
        ((1.0, 1, None, 0.5), "sampling-probability=0.5 must be 1 without sampling"),
        ((1.0, 1, POISSON, 0.5, REPLACE), "sampling=poisson does not go with"),
        ((1.0, 1, FIXED, 0.5, ZERO), "sampling=fixed-size does not go with"),
    ],
)
def test_nonsense_is_named(arguments, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        release(*arguments)
