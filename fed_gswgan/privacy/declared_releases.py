"""Releases that a trusted curator declares: what a centralised method lets out about a record."""

import math
from dataclasses import dataclass

from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.loss_distribution import fixed_size_epsilon, poisson_epsilon
from fed_gswgan.privacy.neighboring import NeighboringRelation
from fed_gswgan.privacy.revealed_selection import revealed_epsilon
from fed_gswgan.privacy.sampled_gaussian import proper_probability
from fed_gswgan.privacy.trust import SamplingMethod
from fed_gswgan.validation import at_least, positive


@dataclass(frozen=True, kw_only=True)
class DeclaredRelease:
    """A Gaussian release that is repeated, each time about records selected afresh.

    Attributes:
        what: was released, in words.
        mu: sensitivity over noise of one of them, under ``relation``, if the record is selected.
        rounds: how many.
        relation: what neighbouring means; all releases of a method share it.
        sampling: how records are selected, None: every record has a part in every release.
        sampling_probability: of a record in a round, in (0, 1]; 1 without sampling.
    """

    what: str
    mu: float
    rounds: int
    relation: NeighboringRelation
    sampling: SamplingMethod | None = None
    sampling_probability: float = 1.0

    def __post_init__(self) -> None:
        positive(mu=self.mu)
        at_least(1, rounds=self.rounds)
        proper_probability(self.sampling_probability)


def epsilon_of(releases: tuple[DeclaredRelease, ...], delta: float) -> float:
    """Return the epsilon of all releases together.

    Raises:
        ValueError: relations differ, or kinds of sampling that cannot be composed yet.
    """
    if len({release.relation for release in releases}) != 1:
        raise ValueError("releases under different neighbouring relations have no common epsilon")
    if all(release.sampling is None for release in releases):
        mu = math.sqrt(sum(release.rounds * release.mu**2 for release in releases))
        return gaussian_epsilon(mu, delta)
    only = releases[0]
    if len(releases) != 1 or only.sampling is None:
        raise ValueError("sampled releases compose only with themselves")
    epsilon = {
        SamplingMethod.POISSON: poisson_epsilon,
        SamplingMethod.FIXED_SIZE: fixed_size_epsilon,
        SamplingMethod.REVEALED: revealed_epsilon,
    }[only.sampling]
    return epsilon(only.mu, only.sampling_probability, only.rounds, delta)
