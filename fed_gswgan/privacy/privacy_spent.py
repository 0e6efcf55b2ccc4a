"""What releases about a user cost, under the trust model they were made in."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fed_gswgan.privacy.accountant import local_epsilon
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.exposure import Exposure
from fed_gswgan.privacy.loss_distribution import TOLERANCE, fixed_size_epsilon, poisson_epsilon
from fed_gswgan.privacy.published_formula import published_epsilon
from fed_gswgan.privacy.revealed_selection import revealed_epsilon
from fed_gswgan.privacy.trust import (
    CriticState,
    SamplingMethod,
    TrustModel,
    must_be_believed,
    selection_is_secret,
)

EXACT = "exact Gaussian (Balle and Wang, arXiv 1805.06530)"
METHODS = {
    SamplingMethod.POISSON: "privacy loss distribution of the Poisson-sampled Gaussian",
    SamplingMethod.FIXED_SIZE: (
        "privacy loss distribution of the dominating pair of fixed-size sampling (arXiv 2106.08567)"
    ),
    SamplingMethod.REVEALED: "mixture of exact Gaussians over the binomial number of selections",
}
PUBLISHED = "the published formula (arXiv 2006.08265): each row of a reply sampled by itself"


@dataclass(frozen=True, kw_only=True)
class PrivacySpent:
    """An epsilon, and all that is needed to read it.

    Attributes:
        epsilon: at ``delta``; under paper trust what was published, which is no guarantee.
        delta: likewise.
        mu: sensitivity over noise, of all participations together, or under central and paper
            trust of one round.
        exposure: trust model, relation and counts.
        method: how epsilon was computed.
        beside: further epsilons, by name, that must be shown with it.
    """

    epsilon: float
    delta: float
    mu: float
    exposure: Exposure
    method: str
    beside: Mapping[str, float] = field(default_factory=dict)

    @property
    def noise_multiplier(self) -> float | None:
        """Noise over sensitivity; None for no release at all."""
        return 1 / self.mu if self.mu else None

    @property
    def must_be_believed(self) -> str:
        """What has to be true for epsilon to hold, and against whom it then does."""
        return must_be_believed(self.exposure.trust, self.exposure.sampling)

    def table(self) -> dict[str, Any]:
        """Return everything by name, without what plays no part."""
        exposure = self.exposure
        counted = exposure.participations is not None
        entries = {
            "epsilon": self.epsilon,
            **self.beside,
            "delta": self.delta,
            "mu": self.mu,
            "mu_of": "all participations" if counted else "one round",
            "noise_multiplier": self.noise_multiplier,
            "trust_model": str(exposure.trust),
            "must_be_believed": self.must_be_believed,
            "neighboring_relation": str(exposure.relation),
            "unit": "user",
            "method": self.method,
        }
        if counted:
            counts: dict[str, Any] = {
                "participations": exposure.participations,
                "honest": exposure.honest or 1,
            }
        else:
            counts = {
                "rounds": exposure.rounds,
                "sampling": str(exposure.sampling),
                "sampling_probability": exposure.sampling_probability,
            }
            if selection_is_secret(exposure.trust, exposure.sampling):
                counts["critic_state"] = str(CriticState.SNAPSHOT)
        return entries | counts


def privacy_spent(
    event: SanitizedGradientEvent, exposure: Exposure, delta: float, tolerance: float = TOLERANCE
) -> PrivacySpent:
    """Return what equal releases cost a user.

    Args:
        event: one reply; under central and paper trust what the server releases in a round, with
            the noise of the released sum.
        exposure: trust model, relation and counts.
        delta: in (0, 1).
        tolerance: relative, of the epsilon of a secret selection.

    Raises:
        ValueError: delta out of range, or an epsilon that cannot be computed.
    """
    if exposure.trust is TrustModel.CENTRAL:
        return _central(event, exposure, delta, tolerance)
    if exposure.trust is TrustModel.PAPER:
        return _paper(event, exposure, delta, tolerance)
    return _counted(event, exposure, delta)


def _counted(event: SanitizedGradientEvent, exposure: Exposure, delta: float) -> PrivacySpent:
    count, honest, relation = exposure.counted(), exposure.honest or 1, exposure.relation
    beside = {}
    if exposure.trust is TrustModel.SECURE_AGGREGATION:
        beside["epsilon_alone"] = local_epsilon(event, count, relation, delta)
    return PrivacySpent(
        epsilon=local_epsilon(event, count, relation, delta, honest),
        delta=delta,
        mu=event.mu(relation) * math.sqrt(count / honest),
        exposure=exposure,
        method=EXACT,
        beside=beside,
    )


def _central(
    event: SanitizedGradientEvent, exposure: Exposure, delta: float, tolerance: float
) -> PrivacySpent:
    mu = event.mu(exposure.relation)
    sampling, probability, rounds = exposure.selection()
    if sampling is SamplingMethod.POISSON:
        epsilon = poisson_epsilon(mu, probability, rounds, delta, tolerance)
    elif sampling is SamplingMethod.FIXED_SIZE:
        epsilon = fixed_size_epsilon(mu, probability, rounds, delta, tolerance)
    else:
        epsilon = revealed_epsilon(mu, probability, rounds, delta)
    method = METHODS[sampling]
    return PrivacySpent(epsilon=epsilon, delta=delta, mu=mu, exposure=exposure, method=method)


def _paper(
    event: SanitizedGradientEvent, exposure: Exposure, delta: float, tolerance: float
) -> PrivacySpent:
    """Return the published figure with the true ones beside it."""
    _, probability, rounds = exposure.selection()
    true = replace(exposure, trust=TrustModel.CENTRAL, critic_state=None)
    persistent = replace(true, sampling=SamplingMethod.REVEALED)
    amplified = _central(event, true, delta, tolerance)
    revealed = _central(event, persistent, delta, tolerance)
    return replace(
        amplified,
        epsilon=published_epsilon(event, probability, rounds, delta),
        exposure=exposure,
        method=PUBLISHED,
        beside={
            "true_epsilon": amplified.epsilon,
            "true_epsilon_persistent_critics": revealed.epsilon,
        },
    )
