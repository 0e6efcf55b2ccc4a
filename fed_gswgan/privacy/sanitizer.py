"""Clip, then add noise: what turns a private gradient into one that may leave the client.

Shapes: B batch, C channels, H and W image.
"""

from dataclasses import dataclass

import numpy as np

from fed_gswgan.config import SanitizerConfig
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.noise_source import NoiseSource


@dataclass(frozen=True, kw_only=True)
class SanitizedGradient:
    """A released value together with the event that says what it cost.

    Attributes:
        values_BCHW: float32, finite.
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
    noisy = noise_source.add_noise(clipped, event.noise_stddev * event.clipping_bound)
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


def clip(gradients_BCHW: np.ndarray, clipping: str, clipping_bound: float) -> np.ndarray:
    """Scale rows, or the whole reply, down to L2 norm at most ``clipping_bound``.

    Args:
        gradients_BCHW: any floating dtype, any values.
        clipping: ``sample`` or ``message``.
        clipping_bound: C > 0.

    Returns:
        float64 array of the same shape. What is inside the bound already is unchanged; a direction
        is kept; a row with a NaN or an infinity becomes a zero row (an exception that depends on
        data would leak).
    """
    rows = np.asarray(gradients_BCHW, dtype=np.float64).reshape(len(gradients_BCHW), -1)
    rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)
    parts = rows.reshape(1, -1) if clipping == "message" else rows
    # Dividing by the largest entry first keeps the square of 1e200 from overflowing.
    largest = np.abs(parts).max(axis=1, keepdims=True)
    scale = np.where(largest > 0, largest, 1.0)
    units = parts / scale
    lengths = np.linalg.norm(units, axis=1, keepdims=True)  # 0, or from 1 on
    with np.errstate(over="ignore"):  # an infinite norm is a norm beyond the bound
        inside = scale * lengths <= clipping_bound
    clipped = np.where(inside, parts, units * (clipping_bound / np.maximum(lengths, 1.0)))
    return np.asarray(clipped.reshape(np.shape(gradients_BCHW)))
