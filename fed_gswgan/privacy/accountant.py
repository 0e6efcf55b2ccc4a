"""Epsilon of the Gaussian mechanism, exactly.

Any number of Gaussian releases about one user, each chosen in the light of the earlier ones, is
as private as a single one whose squared mu is the sum of theirs. So a ledger is read as one
number, mu, and epsilon is the exact value for that mu; no bound is involved.
"""

import math
from collections.abc import Mapping

from scipy.special import log_ndtr

from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.neighboring import NeighboringRelation
from fed_gswgan.validation import at_least, between, non_negative


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


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return the smallest delta at ``epsilon`` of a mu-Gaussian mechanism.

    Source: Balle and Wang, arXiv 1805.06530, theorem 8, with mu = sensitivity / noise.
    """
    if mu == 0:
        return 0.0
    first = log_ndtr(mu / 2 - epsilon / mu)
    second = epsilon + log_ndtr(-mu / 2 - epsilon / mu)
    # first >= second; their difference in log space keeps digits that exp() would drop.
    return float(math.exp(first) * -math.expm1(min(second - first, 0.0)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the smallest epsilon >= 0 at ``delta`` of a mu-Gaussian mechanism.

    Raises:
        ValueError: mu negative or not finite, delta outside (0, 1).
    """
    non_negative(mu=mu)
    between(0, 1, delta=delta)
    if gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    high = 1.0
    while gaussian_delta(mu, high) > delta:
        high *= 2
    low = 0.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (low, middle) if gaussian_delta(mu, middle) <= delta else (middle, high)
    return high


def gaussian_mu(epsilon: float, delta: float) -> float:
    """Return the largest mu whose epsilon at ``delta`` does not pass ``epsilon``.

    ``math.inf`` for an infinite epsilon: no limit.
    """
    between(0, 1, delta=delta)
    if epsilon == math.inf:
        return math.inf
    non_negative(epsilon=epsilon)
    high = 1.0
    while gaussian_delta(high, epsilon) <= delta:
        high *= 2
    low = 0.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if gaussian_delta(middle, epsilon) <= delta else (low, middle)
    return low


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
