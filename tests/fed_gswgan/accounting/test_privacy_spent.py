import math

import pytest

from fed_gswgan.accounting.sampled import fixed_size_epsilon, poisson_epsilon, revealed_epsilon
from fed_gswgan.accounting.trust import Exposure, SamplingMethod, TrustModel, privacy_spent
from fed_gswgan.privacy.events import NeighboringRelation, SanitizedGradientEvent
from fed_gswgan.privacy.gaussian import gaussian_epsilon

REPLACE, ZERO = NeighboringRelation.REPLACE_ONE, NeighboringRelation.ZERO_OUT
# mu = 2 x sqrt(4) / 8 = 0.5 under replace-one, 0.25 under zero-out.
EVENT = SanitizedGradientEvent(samples=4, clipping="sample", clipping_bound=1.0, noise_stddev=8.0)
DELTA = 1e-5


def central(sampling, relation, trust=TrustModel.CENTRAL):
    return Exposure(
        trust=trust, relation=relation, rounds=50, sampling=sampling, sampling_probability=0.05
    )


def test_local_is_the_exact_gaussian_of_the_participations():
    exposure = Exposure(trust=TrustModel.LOCAL, relation=REPLACE, participations=9)
    spent = privacy_spent(EVENT, exposure, DELTA)
    assert spent.mu == pytest.approx(1.5)
    assert spent.noise_multiplier == pytest.approx(2 / 3)
    assert spent.epsilon == pytest.approx(gaussian_epsilon(1.5, DELTA), rel=1e-12)
    assert spent.beside == {}


def test_secure_aggregation_shows_what_is_left_when_nobody_else_adds_noise():
    exposure = Exposure(
        trust=TrustModel.SECURE_AGGREGATION, relation=REPLACE, participations=9, honest=4
    )
    spent = privacy_spent(EVENT, exposure, DELTA)
    assert spent.mu == pytest.approx(0.75)
    assert spent.epsilon == pytest.approx(gaussian_epsilon(0.75, DELTA), rel=1e-12)
    alone = gaussian_epsilon(1.5, DELTA)
    assert spent.table()["epsilon_alone"] == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize(
    ("sampling", "relation", "mu", "epsilon_of"),
    [
        (SamplingMethod.POISSON, ZERO, 0.25, poisson_epsilon),
        (SamplingMethod.FIXED_SIZE, REPLACE, 0.5, fixed_size_epsilon),
        (SamplingMethod.REVEALED, REPLACE, 0.5, revealed_epsilon),
        (SamplingMethod.REVEALED, ZERO, 0.25, revealed_epsilon),
    ],
)
def test_central_counts_rounds_of_one_mu_each(sampling, relation, mu, epsilon_of):
    spent = privacy_spent(EVENT, central(sampling, relation), DELTA)
    assert spent.mu == pytest.approx(mu)
    assert spent.epsilon == pytest.approx(epsilon_of(mu, 0.05, 50, DELTA), rel=1e-12)
    assert spent.table()["mu_of"] == "one round"
    secret = sampling is not SamplingMethod.REVEALED
    assert ("critic_state" in spent.table()) is secret


def test_the_published_figure_never_comes_without_the_true_ones():
    exposure = central(SamplingMethod.FIXED_SIZE, REPLACE, TrustModel.PAPER)
    spent = privacy_spent(EVENT, exposure, DELTA)
    assert spent.beside == {
        "true_epsilon": pytest.approx(fixed_size_epsilon(0.5, 0.05, 50, DELTA)),
        "true_epsilon_persistent_critics": pytest.approx(revealed_epsilon(0.5, 0.05, 50, DELTA)),
    }
    assert spent.table()["true_epsilon"] == spent.beside["true_epsilon"]


def test_no_participation_costs_nothing():
    exposure = Exposure(trust=TrustModel.LOCAL, relation=ZERO, participations=0)
    spent = privacy_spent(EVENT, exposure, DELTA)
    assert (spent.epsilon, spent.mu, spent.noise_multiplier) == (0.0, 0.0, None)


@pytest.mark.parametrize("delta", [0.0, 1.0, math.nan])
def test_an_impossible_delta_is_named(delta):
    for exposure in (
        Exposure(trust=TrustModel.LOCAL, relation=ZERO, participations=1),
        central(SamplingMethod.POISSON, ZERO),
        central(SamplingMethod.REVEALED, ZERO),
        central(SamplingMethod.FIXED_SIZE, REPLACE, TrustModel.PAPER),
    ):
        with pytest.raises(ValueError, match=f"^delta={delta} must"):
            privacy_spent(EVENT, exposure, delta)
