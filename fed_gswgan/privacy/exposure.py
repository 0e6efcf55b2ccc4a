"""How often a user's data is used, as far as the trust model counts it."""

from dataclasses import dataclass, replace

from fed_gswgan.privacy.neighboring import NeighboringRelation
from fed_gswgan.privacy.sampled_gaussian import proper_probability
from fed_gswgan.privacy.trust import CriticState, SamplingMethod, TrustModel, check_combination
from fed_gswgan.validation import at_least

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
    """A trust model with just what it needs to know; everything else stays None.

    Attributes:
        trust: who is trusted.
        relation: what neighbouring means.
        participations: of the user itself, under local and secure-aggregation.
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
        if self.participations is not None:
            at_least(0, participations=self.participations)
        if self.honest is not None:
            at_least(1, honest=self.honest)
        if self.rounds is not None:
            at_least(1, rounds=self.rounds)
        if self.sampling_probability is not None:
            proper_probability(self.sampling_probability)

    def counted(self) -> int:
        """Return the user's participations; ValueError under a trust model that counts rounds."""
        if self.participations is None:
            raise ValueError(f"trust={self.trust} counts rounds, not participations")
        return self.participations

    def selection(self) -> tuple[SamplingMethod, float, int]:
        """Return sampling, its probability and the rounds.

        Raises:
            ValueError: under a trust model that counts the user's participations.
        """
        if self.sampling is None or self.sampling_probability is None or self.rounds is None:
            raise ValueError(f"trust={self.trust} counts participations, whoever is selected")
        return self.sampling, self.sampling_probability, self.rounds

    def with_count(self, count: int) -> "Exposure":
        """Return the same with another number of participations, or of rounds."""
        if self.trust in COUNTED:
            return replace(self, participations=count)
        return replace(self, rounds=count)
