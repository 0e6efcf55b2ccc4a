"""Epsilon under each trust model: who is trusted, how often data is used, what that costs."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
from scipy.special import gammaln, logsumexp

from fed_gswgan.accounting.sampled import (
    TOLERANCE,
    SampledRounds,
    fixed_size_epsilon,
    poisson_epsilon,
    proper_probability,
    revealed_epsilon,
)
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.mechanism import Event, NeighboringRelation
from fed_gswgan.validation import at_least

REPLACE_ONE, ZERO_OUT = NeighboringRelation.REPLACE_ONE, NeighboringRelation.ZERO_OUT


class TrustModel(StrEnum):
    """Who is trusted."""

    LOCAL = "local"  # the device alone
    SECURE_AGGREGATION = "secure-aggregation"  # the protocol, and some of the other clients
    CENTRAL = "central"  # the server
    PAPER = "paper"  # the published formula, for comparison only


class SamplingMethod(StrEnum):
    """How a server that is trusted selects users in a round."""

    POISSON = "poisson"  # each by its own secret coin
    FIXED_SIZE = "fixed-size"  # a secret cohort of fixed size
    REVEALED = "revealed"  # at random, and known afterwards


class CriticState(StrEnum):
    """What a critic starts a participation from."""

    SNAPSHOT = "snapshot"  # the same critic each time, whatever happened before
    PERSISTENT = "persistent"  # what its last participation left


PERMITTED: Mapping[
    TrustModel, tuple[tuple[SamplingMethod | None, tuple[NeighboringRelation, ...]], ...]
] = {
    TrustModel.LOCAL: ((None, (REPLACE_ONE, ZERO_OUT)),),
    TrustModel.SECURE_AGGREGATION: ((None, (REPLACE_ONE, ZERO_OUT)),),
    TrustModel.CENTRAL: (
        (SamplingMethod.POISSON, (ZERO_OUT,)),
        (SamplingMethod.FIXED_SIZE, (REPLACE_ONE,)),
        (SamplingMethod.REVEALED, (REPLACE_ONE, ZERO_OUT)),
    ),
    TrustModel.PAPER: ((SamplingMethod.FIXED_SIZE, (REPLACE_ONE,)),),
}

_BELIEFS = {
    TrustModel.LOCAL: (
        "That the device clips, adds its noise and counts its replies. Holds against everyone who "
        "sees them, the server and all other clients included."
    ),
    TrustModel.SECURE_AGGREGATION: (
        "That the protocol shows nothing but sums, and that in every sum at least this many honest "
        "clients, the user's own included, add their noise and stay. Holds against the server and "
        "the other clients; where the belief fails, epsilon_alone is what is left."
    ),
    TrustModel.CENTRAL: (
        "That the server adds this noise to every sum and shows nothing else, and that it selects "
        "users at random as stated. Holds against those who see what it releases, and not against "
        "the server."
    ),
    TrustModel.PAPER: (
        "This is no guarantee: the published formula counts the rows of a reply as if each were "
        "sampled by itself, though all of them are the same client's. Read true_epsilon instead, "
        "which asks for what central trust does."
    ),
}
_SECRET_SELECTION = (
    " And that the selection stays secret, and that every critic starts each participation from "
    "the same snapshot (critic-state=snapshot): a critic that remembers its participations "
    "betrays the selection, and voids this figure."
)


def must_be_believed(trust: TrustModel, sampling: SamplingMethod | None) -> str:
    """Return what has to be true for an epsilon to hold, and against whom it then does."""
    secret = selection_is_secret(trust, sampling)
    return _BELIEFS[trust] + (_SECRET_SELECTION if secret else "")


def selection_is_secret(trust: TrustModel, sampling: SamplingMethod | None) -> bool:
    """Return whether a selection that stays secret amplifies privacy."""
    return trust is TrustModel.CENTRAL and sampling is not SamplingMethod.REVEALED


def check_combination(
    trust: TrustModel,
    sampling: SamplingMethod | None,
    relation: NeighboringRelation,
    critic_state: CriticState | None,
) -> None:
    """Refuse what has no proven epsilon.

    Args:
        trust: who is trusted.
        sampling: None where it plays no part.
        relation: what neighbouring means.
        critic_state: None: not said.

    Raises:
        ValueError: it names both settings and what is permitted.
    """
    relations = dict(PERMITTED[trust]).get(sampling, ())
    if relation not in relations:
        raise ValueError(
            f"sampling={sampling} does not go with neighboring={relation} under trust={trust}; "
            f"permitted: {_permitted(trust)}"
        )
    if selection_is_secret(trust, sampling) and critic_state is CriticState.PERSISTENT:
        raise ValueError(
            f"critic-state=persistent does not go with sampling={sampling}: critics that remember "
            "their participations betray a secret selection; use sampling=revealed, or "
            "critic-state=snapshot"
        )


def _permitted(trust: TrustModel) -> str:
    return ", ".join(
        f"{sampling or 'no sampling'} with {' or '.join(relations)}"
        for sampling, relations in PERMITTED[trust]
    )


COUNTED = (TrustModel.LOCAL, TrustModel.SECURE_AGGREGATION)
SAMPLED = (TrustModel.CENTRAL, TrustModel.PAPER)
# Where each setting plays a part.
PLAYS_A_PART = {
    "participations": COUNTED,
    "honest": (TrustModel.SECURE_AGGREGATION,),
    "rounds": SAMPLED,
    "sampling": SAMPLED,
    "sampling_probability": SAMPLED,
}


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """How often a user's data is used, as far as the trust model counts it; the rest stays None.

    Attributes:
        trust: who is trusted.
        relation: what neighbouring means.
        participations: of the user itself, under local and secure-aggregation; sampling plays no
            part, since the server routes the messages and knows who answered.
        honest: honest survivors in every sum, under secure-aggregation; None: 1.
        rounds: of the run, under central and paper.
        sampling: how users are selected, under central and paper.
        sampling_probability: of a user in a round, in (0, 1], under central and paper.
        critic_state: None where nothing was said; secret selection then stands on a snapshot.

    Raises:
        ValueError: something is missing, too much, out of range or not permitted.
    """

    trust: TrustModel
    relation: NeighboringRelation
    participations: int | None = None
    honest: int | None = None
    rounds: int | None = None
    sampling: SamplingMethod | None = None
    sampling_probability: float | None = None
    critic_state: CriticState | None = None

    def __post_init__(self) -> None:
        for name, trust_models in PLAYS_A_PART.items():
            value, setting = getattr(self, name), name.replace("_", "-")
            if value is not None and self.trust not in trust_models:
                raise ValueError(
                    f"{setting}={value} plays no part under trust={self.trust}: leave it out"
                )
            if value is None and self.trust in trust_models and name != "honest":
                raise ValueError(f"{setting} must be given under trust={self.trust}")
        check_combination(self.trust, self.sampling, self.relation, self.critic_state)
        for name, least in (("participations", 0), ("honest", 1), ("rounds", 1)):
            if (count := getattr(self, name)) is not None:
                at_least(least, **{name: count})
        if self.sampling_probability is not None:
            proper_probability(self.sampling_probability)

    def sampled_rounds(self, mu: float) -> SampledRounds:
        """Return the rounds, each of them a release of ``mu``.

        Raises:
            ValueError: under a trust model that counts the user's participations.
        """
        if self.rounds is None or self.sampling_probability is None:
            raise ValueError(f"trust={self.trust} counts participations: sampling plays no part")
        return SampledRounds(
            mu=mu, sampling_probability=self.sampling_probability, rounds=self.rounds
        )

    def with_count(self, count: int) -> "Exposure":
        """Return the same with another number of participations, or of rounds."""
        if self.trust in COUNTED:
            return replace(self, participations=count)
        return replace(self, rounds=count)


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
            "must_be_believed": must_be_believed(exposure.trust, exposure.sampling),
            "neighboring_relation": str(exposure.relation),
            "unit": "user",
            "method": self.method,
        }
        if counted:
            return {
                **entries,
                "participations": exposure.participations,
                "honest": exposure.honest or 1,
            }
        secret = selection_is_secret(exposure.trust, exposure.sampling)
        return {
            **entries,
            "rounds": exposure.rounds,
            "sampling": str(exposure.sampling),
            "sampling_probability": exposure.sampling_probability,
            **({"critic_state": str(CriticState.SNAPSHOT)} if secret else {}),
        }


def privacy_spent(
    event: Event, exposure: Exposure, delta: float, tolerance: float = TOLERANCE
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
    mu, beside = event.mu(exposure.relation), {}
    if exposure.participations is not None:
        mu *= math.sqrt(exposure.participations)
        if exposure.trust is TrustModel.SECURE_AGGREGATION:
            beside["epsilon_alone"] = gaussian_epsilon(mu, delta)
        mu /= math.sqrt(exposure.honest or 1)
        epsilon, method = gaussian_epsilon(mu, delta), EXACT
    else:
        rounds, sampling = exposure.sampled_rounds(mu), exposure.sampling
        if sampling is SamplingMethod.POISSON:
            epsilon = poisson_epsilon([rounds], delta, tolerance)
        elif sampling is SamplingMethod.FIXED_SIZE:
            epsilon = fixed_size_epsilon([rounds], delta, tolerance)
        else:
            epsilon = revealed_epsilon(rounds, delta)
        method = METHODS[sampling or SamplingMethod.REVEALED]
        if exposure.trust is TrustModel.PAPER:
            beside["true_epsilon"] = epsilon
            beside["true_epsilon_persistent_critics"] = revealed_epsilon(rounds, delta)
            probability = rounds.sampling_probability
            epsilon = published_epsilon(event, probability, rounds.rounds, delta)
            method = PUBLISHED
    return PrivacySpent(
        epsilon=epsilon, delta=delta, mu=mu, exposure=exposure, method=method, beside=beside
    )


LARGEST_ORDER = 1024


def published_epsilon(
    event: Event, sampling_probability: float, rounds: int, delta: float
) -> float:
    """Return the epsilon of the accounting that GS-WGAN was published with; not a guarantee.

    All rows of a round come from the one critic that was selected, so they share one secret coin.
    The published accounting gives each row a coin of its own: rounds x samples subsampled releases
    of one row, where there are rounds of all rows together.

    Args:
        event: a round's release.
        sampling_probability: cohort over population.
        rounds: how many.
        delta: in (0, 1).

    Source: GS-WGAN, arXiv 2006.08265. The Rényi bound of a sampled Gaussian is that of
        arXiv 1808.00087, theorem 9, with an unbounded loss; its conversion that of arXiv
        1702.07476, proposition 3. Between two whole orders the bound is a straight line, so its
        best lies at one of them.
    """
    sigma = event.noise_stddev / REPLACE_ONE.sensitivity_multiple
    releases = rounds * (event.rows if event.bounded == "sample" else 1)

    def log_moment(order: int) -> float:
        j = np.arange(2, order + 1)
        terms = j * math.log(sampling_probability) + (j - 1) * j / (2 * sigma**2) + math.log(2)
        terms += gammaln(order + 1) - gammaln(j + 1) - gammaln(order - j + 1)
        terms[0] += min(0.0, math.log(2 * -math.expm1(-1 / sigma**2)))
        return float(logsumexp(np.append(terms, 0.0)))

    return min(
        (releases * log_moment(order) - math.log(delta)) / (order - 1)
        for order in range(2, LARGEST_ORDER + 1)
    )


@dataclass(frozen=True, kw_only=True)
class DeclaredRelease(SampledRounds):
    """A Gaussian release that a trusted curator repeats, each time about records selected afresh.

    Attributes:
        what: was released, in words.
        relation: what neighbouring means; all releases of a method share it, and mu is under it.
        sampling: how records are selected, None: every record has a part in every release.

    Raises:
        ValueError: a value out of its range, a probability without sampling, or sampling that has
            no proven epsilon under ``relation``.
    """

    what: str
    relation: NeighboringRelation
    sampling: SamplingMethod | None = None
    sampling_probability: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampling is not None:
            check_combination(TrustModel.CENTRAL, self.sampling, self.relation, None)
        elif self.sampling_probability != 1:
            raise ValueError(
                f"sampling-probability={self.sampling_probability} must be 1 without sampling: "
                "say how records are selected"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return everything by name, fit for JSON."""
        return asdict(self)


def epsilon_of(releases: tuple[DeclaredRelease, ...], delta: float) -> float:
    """Return the epsilon of all releases together.

    Unlike ones add up by their privacy loss distributions, with no bound in between: under
    zero-out those with Poisson sampling and those without, under replace-one those with samples of
    fixed size and those without. Every selection is independent of the others and stays secret.

    Raises:
        ValueError: none is declared, relations differ, or kinds of sampling that do not compose.
    """
    if len({release.relation for release in releases}) != 1:
        raise ValueError(
            "releases under different neighbouring relations, or none at all, have no common "
            "epsilon: declare at least one, and state all under the same relation"
        )
    kinds = {release.sampling for release in releases} - {None}
    if kinds == {SamplingMethod.REVEALED} and len(releases) == 1:
        return revealed_epsilon(releases[0], delta)
    if kinds <= {SamplingMethod.POISSON}:  # without sampling both are the exact Gaussian
        return poisson_epsilon(releases, delta)
    if kinds == {SamplingMethod.FIXED_SIZE}:
        return fixed_size_epsilon(releases, delta)
    raise ValueError(
        f"sampling={', '.join(sorted(map(str, kinds)))} in {len(releases)} releases do not "
        "compose: poisson and fixed-size go with themselves and with releases without sampling, "
        "revealed goes alone"
    )
