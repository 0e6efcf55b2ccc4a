"""What every baseline returns: how to draw samples, and what was released to get there."""

from dataclasses import dataclass

from fed_gswgan.accounting.trust import DeclaredRelease
from fed_gswgan.evaluation.samplers import Sampler


@dataclass(frozen=True, kw_only=True)
class TrainedBaseline:
    """A generator trained on private images that lie in one place.

    Attributes:
        sampler: draws samples of the classes asked for.
        releases: everything in which private images had a part; together they give epsilon.
        published_epsilon: what the method's own authors' accounting says of the same releases.
        published_accounting: that accounting in a few words, with its source.
    """

    sampler: Sampler
    releases: tuple[DeclaredRelease, ...]
    published_epsilon: float
    published_accounting: str
