"""Clip a model update: what leaves a client whose owner trusts the server to add the noise.

Against the server itself it protects nothing. P: parameters of the model.
"""

from dataclasses import dataclass

import numpy as np

from fed_gswgan.privacy.clipping import clip
from fed_gswgan.privacy.events import SanitizedGradientEvent


@dataclass(frozen=True, kw_only=True)
class ClippedUpdate:
    """An update without noise, and the event it becomes once the server has added it.

    Attributes:
        values_P: float32, of L2 norm at most C.
        event: its clipping, and the noise of the sum it will be part of.
    """

    values_P: np.ndarray
    event: SanitizedGradientEvent


def update_event(clipping_bound: float, noise_stddev: float) -> SanitizedGradientEvent:
    """Return the event of one update, clipped as a whole, in a sum with so much noise.

    Args:
        clipping_bound: C, an L2 norm.
        noise_stddev: on one coordinate of the sum, in units of C.
    """
    return SanitizedGradientEvent(
        samples=1,
        clipping="message",
        clipping_bound=clipping_bound,
        noise_stddev=noise_stddev,
        noise_added_by="server",
    )


def clip_update(update_P: np.ndarray, event: SanitizedGradientEvent) -> ClippedUpdate:
    """Clip an update as a whole; one with a NaN or an infinity becomes zero.

    Guarantees:
        The exact norm of what is returned is at most C: float32 is rounded towards zero.
    """
    clipped_P = clip(update_P[None], "message", event.clipping_bound)[0]
    values_P = clipped_P.astype(np.float32)
    beyond_P = np.abs(values_P.astype(np.float64)) > np.abs(clipped_P)
    values_P[beyond_P] = np.nextafter(values_P[beyond_P], np.float32(0))
    return ClippedUpdate(values_P=values_P, event=event)
