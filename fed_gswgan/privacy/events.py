"""Private releases as data, and what the device itself reads from them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.validation import at_least, between, one_of


class NeighboringRelation(StrEnum):
    """How one user's data may change.

    The relation never changes the noise; it says how the noise is read.
    """

    REPLACE_ONE = "replace-one"  # the user's data is exchanged for any other
    ZERO_OUT = "zero-out"  # the user's contribution is replaced by zeros, the noise stays

    @property
    def sensitivity_multiple(self) -> int:
        """Distance between two neighbouring values of norm at most C, in units of C."""
        return {NeighboringRelation.REPLACE_ONE: 2, NeighboringRelation.ZERO_OUT: 1}[self]


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


class UnsupportedEventError(TypeError):
    """An event whose privacy this accountant does not know; it never guesses."""


def compose(releases: Mapping[SanitizedGradientEvent, int], relation: NeighboringRelation) -> float:
    """Return mu of all releases about one user: the root of the sum of squares.

    Args:
        releases: each event and how often it happened; their order does not matter.
        relation: what neighbouring means.

    Holds for adaptively chosen releases and for any state kept between them (a critic, an
    optimizer), since the noise of each reply is fresh.

    Raises:
        UnsupportedEventError: an event of another kind.

    Source: Gaussian differential privacy, arXiv 1905.02383, corollary 3.3.
    """
    squares = []
    for event, count in releases.items():
        if not isinstance(event, SanitizedGradientEvent):
            raise UnsupportedEventError(f"{type(event).__name__} is no event of this accountant")
        squares.append(count * event.mu(relation) ** 2)
    return math.sqrt(math.fsum(squares))


def local_epsilon(
    event: SanitizedGradientEvent,
    participations: int,
    relation: NeighboringRelation,
    delta: float,
    honest: int = 1,
) -> float:
    """Return epsilon of a user who sent ``participations`` equal replies.

    Args:
        event: one reply.
        participations: the user's own count; sampling plays no part, since the server routes the
            messages and knows who answered.
        relation: what neighbouring means.
        delta: in (0, 1).
        honest: honest survivors whose noise adds up in every sum the server sees. 1 is the local
            trust model: the server sees each reply by itself.
    """
    at_least(0, participations=participations)
    at_least(1, honest=honest)
    return gaussian_epsilon(event.mu(relation) * math.sqrt(participations / honest), delta)


# An honest row or reply is longer than its bound less than once in so many.
ODDS = 1e12


def largest_row_norm(event: SanitizedGradientEvent, row_size: int) -> float:
    """Return an L2 norm that an honest row of ``row_size`` numbers does not exceed.

    Clipped to C before the noise, whether the row or the reply as a whole was clipped.
    """
    noise = noise_norm(row_size, ODDS * event.samples)
    return event.clipping_bound * (1 + event.noise_stddev * noise)


def largest_reply_norm(event: SanitizedGradientEvent, row_size: int) -> float:
    """Return an L2 norm that an honest reply, all rows as one, does not exceed."""
    clipped = math.sqrt(event.samples) if event.clipping == "sample" else 1.0
    noise = noise_norm(row_size * event.samples, ODDS)
    return event.clipping_bound * (clipped + event.noise_stddev * noise)


def noise_norm(size: int, odds: float) -> float:
    """Return what the norm of ``size`` standard normal numbers exceeds less than once in ``odds``.

    Source: Laurent and Massart, Annals of Statistics 28(5), 2000, lemma 1:
    P(norm squared >= n + 2 sqrt(n t) + 2 t) <= exp(-t).
    """
    t = math.log(odds)
    return math.sqrt(size + 2 * math.sqrt(size * t) + 2 * t)
