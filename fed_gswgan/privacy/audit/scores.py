"""Scores of a release, large where it looks as if the user's data were present."""

from collections.abc import Callable, Sequence

import numpy as np

from fed_gswgan.privacy.events import SanitizedGradientEvent

Score = Callable[[Sequence[np.ndarray]], float]


def projection(
    present: Sequence[np.ndarray], changed: Sequence[np.ndarray], event: SanitizedGradientEvent
) -> Score:
    """Return the score along what a correct sanitizer would change; the best against a Gaussian.

    Source: the likelihood ratio of two Gaussians of one covariance grows along the difference of
        their means (Neyman and Pearson).
    """
    difference = _clipped(present, event) - _clipped(changed, event)
    direction = difference / np.linalg.norm(difference)
    return lambda released: float(direction @ _joined(released))


def unreachable_by_single_precision(event: SanitizedGradientEvent) -> Score:
    """Return the score that counts values which float32 noise on a zero gradient cannot take.

    A float32 normal times a float32 deviation skips some numbers; one that is skipped proves that
    something was added to the noise.

    Source: Mironov, On significance of the least significant bits for differential privacy
        (CCS 2012), for Laplace noise.
    """
    stddev = np.float32(event.noise_stddev * event.clipping_bound)

    def score(released: Sequence[np.ndarray]) -> float:
        values = np.concatenate([message.ravel() for message in released])
        nearest = (values.astype(np.float64) / float(stddev)).astype(np.float32)
        below, above = (np.nextafter(nearest, np.float32(side)) for side in (-np.inf, np.inf))
        reached = [stddev * normal == values for normal in (below, nearest, above)]
        return float(np.count_nonzero(~np.any(reached, axis=0)))

    return score


def _clipped(messages: Sequence[np.ndarray], event: SanitizedGradientEvent) -> np.ndarray:
    """Return what a correct sanitizer adds noise to; written apart from the one under audit."""
    clipped = []
    for message in messages:
        rows = message.reshape(len(message), -1).astype(np.float64)
        rows[~np.isfinite(rows).all(axis=1)] = 0
        parts = rows if event.clipping == "sample" else rows.reshape(1, -1)
        norms = np.linalg.norm(parts, axis=1, keepdims=True)
        clipped.append(parts / np.maximum(norms / event.clipping_bound, 1))
    return _joined(clipped)


def _joined(messages: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([message.ravel() for message in messages]).astype(np.float64)
