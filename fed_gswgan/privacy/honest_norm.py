"""How long a sanitized gradient can honestly be: what bounds the weight of a dishonest reply."""

import math

from fed_gswgan.privacy.events import SanitizedGradientEvent

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
