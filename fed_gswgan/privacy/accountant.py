"""Epsilon of the Gaussian mechanism, exactly.

Any number of Gaussian releases about one user, each chosen in the light of the earlier ones, is
as private as a single one whose squared mu is the sum of theirs. So a ledger is read as one
number, mu, and epsilon is the exact value for that mu; no bound is involved.
"""

import math
from collections.abc import Mapping

from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.neighboring import NeighboringRelation
from fed_gswgan.validation import at_least


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
