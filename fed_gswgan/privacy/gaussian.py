"""Delta and epsilon of the Gaussian mechanism, exactly, and the mu that meets them."""

import math
from typing import Any

import numpy as np
from scipy.special import log_ndtr

from fed_gswgan.validation import between, non_negative


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return the smallest delta at ``epsilon`` of a mu-Gaussian mechanism.

    Source: Balle and Wang, arXiv 1805.06530, theorem 8, with mu = sensitivity / noise.
    """
    return 0.0 if mu == 0 else math.exp(gaussian_log_delta(mu, epsilon))


def gaussian_log_delta(mu: Any, epsilon: Any) -> Any:
    """Return the logarithm of ``gaussian_delta``; of numbers, or of arrays of them.

    Args:
        mu: above 0.
        epsilon: any finite value.
    """
    first = log_ndtr(mu / 2 - epsilon / mu)
    second = epsilon + log_ndtr(-mu / 2 - epsilon / mu)
    # first >= second; their difference in log space keeps digits that exp() would drop.
    with np.errstate(divide="ignore"):
        return first + np.log(-np.expm1(np.minimum(second - first, 0.0)))


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
