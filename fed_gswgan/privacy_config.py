"""The settings that can change privacy: how a reply is sanitized, and how much a user may spend."""

import math
from dataclasses import dataclass

from fed_gswgan.privacy.events import CLIPPING_BOUNDS, CLIPPINGS, NOISE_STDDEVS
from fed_gswgan.validation import at_least, between, one_of, positive

MOST_FREQUENCIES = 28  # of an image of 28 x 28


@dataclass(frozen=True, kw_only=True)
class SanitizerConfig:
    """What is done to a sample gradient before it may leave. Changing any of it changes privacy."""

    clipping: str = "sample"  # sample: each row to C; message: the whole reply to C
    clipping_bound: float = 1.0  # C
    noise_stddev: float = 2.14  # on one coordinate of one row, in units of C
    noise_source: str = "secure"  # seeded: reproducible simulations only
    dct_frequencies: int = 0  # of each axis, that a reply is written in; 0: in pixels

    def __post_init__(self) -> None:
        one_of(CLIPPINGS, clipping=self.clipping)
        between(*CLIPPING_BOUNDS, clipping_bound=self.clipping_bound)
        between(*NOISE_STDDEVS, noise_stddev=self.noise_stddev)
        one_of(("secure", "seeded"), noise_source=self.noise_source)
        if not 0 <= self.dct_frequencies <= MOST_FREQUENCIES:
            raise ValueError(
                f"dct-frequencies={self.dct_frequencies} must lie in [0, {MOST_FREQUENCIES}]"
            )


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """How the ledger is read, and when it refuses."""

    neighboring_relation: str = "replace-one"
    delta: float = 1e-5
    max_epsilon: float = math.inf  # inf: no limit, and said so in the summary
    max_participations: int = 0  # replies of a user; 0: no limit

    def __post_init__(self) -> None:
        one_of(("replace-one", "zero-out"), neighboring_relation=self.neighboring_relation)
        between(0, 1, delta=self.delta)
        if self.max_epsilon != math.inf:
            positive(max_epsilon=self.max_epsilon)
        at_least(0, max_participations=self.max_participations)
