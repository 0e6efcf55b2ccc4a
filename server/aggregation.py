"""How the cohort's sanitized gradients become one.

Shapes: B batch, C channels, H and W image.
"""

from collections.abc import Mapping

import numpy as np


def combine(gradients: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the mean over clients, float32, shape (B, C, H, W).

    Everybody answered the same samples, so gradients add up row by row and their noise averages
    out. Every client counts alike: weights by number of images would leak those numbers.

    Args:
        gradients: client id to sanitized_gradient_BCHW, at least one; summed in the order of ids
            in float64, so that the order of arrival changes nothing.
    """
    ordered = [gradients[client_id] for client_id in sorted(gradients)]
    return np.asarray(np.mean(ordered, axis=0, dtype=np.float64), dtype=np.float32)
