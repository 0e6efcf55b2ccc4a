"""Rounds of one kind: what is released in one of them, to whom it may happen, and how often."""

from dataclasses import dataclass

from fed_gswgan.privacy.sampled_gaussian import SampledGaussian, proper_probability
from fed_gswgan.validation import at_least, positive


@dataclass(frozen=True, kw_only=True)
class SampledRounds:
    """Rounds of one kind.

    Attributes:
        mu: sensitivity over noise of one round's release.
        sampling_probability: of a user in a round, in (0, 1]; at 1 it takes part in every one.
        rounds: how many, each with a selection of its own.

    Raises:
        ValueError: a value out of its range.
    """

    mu: float
    sampling_probability: float
    rounds: int

    def __post_init__(self) -> None:
        positive(mu=self.mu)
        at_least(1, rounds=self.rounds)
        proper_probability(self.sampling_probability)

    def __str__(self) -> str:
        return (
            f"rounds={self.rounds} at sampling-probability={self.sampling_probability} with "
            f"mu={self.mu:g} a round"
        )

    @property
    def is_certain(self) -> bool:
        """Whether a user takes part in every round."""
        return self.sampling_probability == 1

    @property
    def once(self) -> SampledGaussian:
        """One of the rounds."""
        return SampledGaussian(mu=self.mu, sampling_probability=self.sampling_probability)
