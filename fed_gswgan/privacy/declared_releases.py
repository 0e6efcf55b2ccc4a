"""Releases that a trusted curator declares: what a centralised method lets out about a record."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.loss_distribution import (
    composed_fixed_size_epsilon,
    composed_poisson_epsilon,
)
from fed_gswgan.privacy.neighboring import NeighboringRelation
from fed_gswgan.privacy.revealed_selection import revealed_epsilon
from fed_gswgan.privacy.sampled_gaussian import proper_probability
from fed_gswgan.privacy.sampled_rounds import SampledRounds
from fed_gswgan.privacy.trust import SamplingMethod, TrustModel, check_combination
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

    Raises:
        ValueError: a value out of its range, a probability without sampling, or sampling that has
            no proven epsilon under ``relation``.
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
    if not kinds:
        mu = math.sqrt(sum(release.rounds * release.mu**2 for release in releases))
        return gaussian_epsilon(mu, delta)
    if kinds == {SamplingMethod.REVEALED} and len(releases) == 1:
        only = releases[0]
        return revealed_epsilon(only.mu, only.sampling_probability, only.rounds, delta)
    if kinds == {SamplingMethod.POISSON}:
        return composed_poisson_epsilon(_rounds(releases), delta)
    if kinds == {SamplingMethod.FIXED_SIZE}:
        return composed_fixed_size_epsilon(_rounds(releases), delta)
    raise ValueError(
        f"sampling={', '.join(sorted(map(str, kinds)))} in {len(releases)} releases do not "
        "compose: poisson and fixed-size go with themselves and with releases without sampling, "
        "revealed goes alone"
    )


def _rounds(releases: tuple[DeclaredRelease, ...]) -> list[SampledRounds]:
    return [
        SampledRounds(
            mu=release.mu,
            sampling_probability=release.sampling_probability,
            rounds=release.rounds,
        )
        for release in releases
    ]
