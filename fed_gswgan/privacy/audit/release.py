"""A release under audit: a sanitizer is called as a client would, and its answer is looked at."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fed_gswgan.privacy.events import SanitizedGradientEvent

# Takes the gradients of one reply or of several in a row, all under one event; returns the values
# that would leave the client, an array for each.
SanitizeMessages = Callable[[Sequence[np.ndarray], SanitizedGradientEvent], Sequence[Any]]


class FaultyRelease(Exception):
    """No answer, or one whose form says something about the data."""


def release(
    sanitize_messages: SanitizeMessages,
    messages: Sequence[np.ndarray],
    event: SanitizedGradientEvent,
) -> Sequence[np.ndarray]:
    """Sanitize copies of ``messages``, float32 of shape (B, C, H, W).

    Raises:
        FaultyRelease: an exception, another shape or number of answers, values that are not
            float32 or not finite. Each tells something of the data, whatever the values are.
    """
    try:
        released = sanitize_messages([message.copy() for message in messages], event)
    except Exception as error:
        raise FaultyRelease(f"{type(error).__name__}: {error}") from error
    if len(released) != len(messages):
        raise FaultyRelease(f"{len(released)} answers to {len(messages)} messages")
    for message, values in zip(messages, released, strict=True):
        if not isinstance(values, np.ndarray) or values.dtype != np.float32:
            raise FaultyRelease(f"{getattr(values, 'dtype', type(values))} instead of float32")
        if values.shape != message.shape:
            raise FaultyRelease(f"shape {values.shape} instead of {message.shape}")
        if not np.isfinite(values).all():
            raise FaultyRelease("values that are not finite")
    return released
