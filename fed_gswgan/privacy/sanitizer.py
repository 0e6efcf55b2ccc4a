"""Clip, then add noise: what turns a private gradient into one that may leave the client.

Shapes: B batch, C channels, H and W image.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from fed_gswgan.privacy.clipping import clip
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.noise_source import NoiseSource
from fed_gswgan.privacy_config import SanitizerConfig


@dataclass(frozen=True, kw_only=True)
class SanitizedGradient:
    """A released value together with the event that says what it cost.

    Attributes:
        values_BCHW: float32, finite; pixels, or frequencies (``release_basis``) in place of H, W.
        event: its clipping and noise, from which its sensitivity follows under either relation.
    """

    values_BCHW: np.ndarray
    event: SanitizedGradientEvent


def sanitize(
    gradients_BCHW: np.ndarray, event: SanitizedGradientEvent, noise_source: NoiseSource
) -> SanitizedGradient:
    """Clip and add noise as ``event`` says, the one that was charged; the only way out of a client.

    Guarantees:
        * Bounded: before the noise the row (``clipping = sample``) or the reply (``message``) has
          L2 norm at most C, whatever came in, non-finite rows included.
        * Noised last: nothing that depends on the gradient happens after the noise but a rounding
          to float32 and a clamp to the public range of float32.
        * Every row is answered and noised; shape and number of draws do not depend on the data.

    Raises:
        ValueError: not as many rows as were charged.

    Source: GS-WGAN, arXiv 2006.08265, gradient sanitization.
    """
    if len(gradients_BCHW) != event.samples:
        raise ValueError(f"samples={len(gradients_BCHW)} must be the {event.samples} charged")
    clipped = clip(gradients_BCHW, event.clipping, event.clipping_bound)
    noisy = noise_source.add_noise(clipped, _noise_deviation(event))
    limit = np.finfo(np.float32).max
    values = np.clip(noisy, -limit, limit).astype(np.float32)
    return SanitizedGradient(values_BCHW=values, event=event)


def release_event(samples: int, config: SanitizerConfig) -> SanitizedGradientEvent:
    """Return the event of a reply of ``samples`` rows, known before any data is read."""
    return SanitizedGradientEvent(
        samples=samples,
        clipping=config.clipping,
        clipping_bound=config.clipping_bound,
        noise_stddev=config.noise_stddev,
    )


def _noise_deviation(event: SanitizedGradientEvent) -> float:
    """Return noise-stddev x C, rounded up if at all: the exact product is what was charged."""
    product = event.noise_stddev * event.clipping_bound
    exact = Fraction(event.noise_stddev) * Fraction(event.clipping_bound)
    return product if product >= exact else math.nextafter(product, math.inf)
