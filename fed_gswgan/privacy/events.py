"""Private releases as data: what an accountant reads and a ledger stores."""

import math
from dataclasses import dataclass

from fed_gswgan.privacy.neighboring import NeighboringRelation
from fed_gswgan.validation import at_least, between, one_of

# Far outside of use, and far inside what floating point can multiply and square.
NOISE_STDDEVS = (1e-9, 1e9)
CLIPPING_BOUNDS = (1e-30, 1e30)
CLIPPINGS = ("sample", "message")


@dataclass(frozen=True, kw_only=True)
class SanitizedGradientEvent:
    """One reply: a batch of clipped sample gradients with Gaussian noise on every coordinate.

    Attributes:
        samples: rows of the reply (B).
        clipping: ``sample`` bounds each row by C, ``message`` the reply as a whole.
        clipping_bound: C, an L2 norm.
        noise_stddev: standard deviation of the noise on one coordinate, in units of C.
        noise_added_by: ``device``, or ``server``: to the sum of all replies, if it is believed.
    """

    samples: int
    clipping: str
    clipping_bound: float
    noise_stddev: float
    noise_added_by: str = "device"

    def __post_init__(self) -> None:
        one_of(("device", "server"), noise_added_by=self.noise_added_by)
        at_least(1, samples=self.samples)
        one_of(CLIPPINGS, clipping=self.clipping)
        between(*CLIPPING_BOUNDS, clipping_bound=self.clipping_bound)
        between(*NOISE_STDDEVS, noise_stddev=self.noise_stddev)

    def sensitivity(self, relation: NeighboringRelation) -> float:
        """Return the largest L2 change of the reply that one user can cause, in units of C."""
        rows = self.samples if self.clipping == "sample" else 1
        return relation.sensitivity_multiple * math.sqrt(rows)

    def mu(self, relation: NeighboringRelation) -> float:
        """Return sensitivity over noise: the reply is mu-Gaussian differentially private.

        Source: Gaussian differential privacy, arXiv 1905.02383; the whole reply is one Gaussian
            mechanism, since its rows are released together.
        """
        return self.sensitivity(relation) / self.noise_stddev
