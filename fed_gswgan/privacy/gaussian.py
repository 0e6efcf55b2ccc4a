"""Delta, epsilon and mu of the Gaussian mechanism, to the last digits.

With x = epsilon/mu - mu/2 and y = x + mu, delta = Phi(-x) - e^epsilon Phi(-y). Both terms are
nearly equal where mu is small or epsilon large, so their difference is not taken there. Since the
normal density phi satisfies phi(x) = e^epsilon phi(y), delta = phi(x) (R(x) - R(y)), where R is
Mills' ratio, Phi(-x) / phi(x) = sqrt(pi/2) erfcx(x / sqrt(2)); and a small difference of R is
integrated from its derivative.

Source: Balle and Wang, arXiv 1805.06530, theorem 8, with mu = sensitivity / noise.
"""

import math
import sys
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import erfcx, ndtr, ndtri

from fed_gswgan.validation import between, non_negative

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_FAR = 30.0  # from here on the asymptotic series of Mills' ratio has every digit
_CLOSEST = 4 * sys.float_info.epsilon
_TINY = sys.float_info.min
_LARGEST_MU = 1e150  # whose square is a float


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return the smallest delta at ``epsilon`` >= 0 of a mu-Gaussian mechanism.

    Guarantees: a relative error below 1e-12 where delta >= 1e-300 and 1e-12 <= mu <= 1e9.
    """
    return 0.0 if mu == 0 else math.exp(gaussian_log_delta(mu, epsilon))


def gaussian_log_delta(mu: Any, epsilon: Any) -> Any:
    """Return the natural logarithm of ``gaussian_delta``; of numbers, or of arrays of them.

    Args:
        mu: above 0.
        epsilon: at least 0.
    """
    x = _difference_to_half_square(mu, epsilon) / mu
    with np.errstate(all="ignore"):  # np.where evaluates both of its branches everywhere
        tail = np.log(_mills_difference(x, mu)) - x * x / 2 - math.log(2 * math.pi) / 2
        # Left of 0, R overflows and Phi(-x) does not cancel, unless mu is small.
        bulk = ndtr(-x) - np.exp(-x * x / 2) / math.sqrt(2 * math.pi) * _mills(x + mu)
        return np.where((x >= 0) | (mu <= 1), tail, np.log(bulk))[()]


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the smallest epsilon >= 0 at ``delta`` of a mu-Gaussian mechanism.

    Guarantees: a relative error below 1e-12 where delta >= 1e-300, 1e-12 <= mu <= 1e9 and
    epsilon > 0.01 mu. A smaller epsilon depends on delta steeply; its error is below 1e-14 mu.

    Raises:
        ValueError: mu negative or not finite, delta outside (0, 1).
    """
    non_negative(mu=mu)
    between(0, 1, delta=delta)
    if mu == 0:
        return 0.0
    if mu > _LARGEST_MU:
        return math.inf

    def excess(epsilon: float) -> float:
        return float(gaussian_log_delta(mu, epsilon)) - math.log(delta)

    if excess(0.0) <= 0:
        return 0.0
    high = max(
        mu * (mu / 2 - float(ndtri(delta))), math.ulp(0.0)
    )  # where Phi(-x) = delta, or above it
    while excess(high) > 0:
        high *= 2
    # A share of ``high``, since brentq does not converge among subnormal numbers.
    root = brentq(lambda share: excess(share * high), 0.0, 1.0, xtol=_TINY, rtol=_CLOSEST)
    epsilon = float(root) * high
    while excess(epsilon) > 0:
        epsilon = max(epsilon * (1 + _CLOSEST), math.nextafter(epsilon, math.inf))
    return epsilon


def gaussian_mu(epsilon: float, delta: float) -> float:
    """Return the largest mu whose epsilon at ``delta`` does not pass ``epsilon``.

    ``math.inf`` for an infinite epsilon: no limit.

    Guarantees: a relative error below 1e-12 where delta >= 1e-300 and 1e-12 <= mu <= 1e9.

    Raises:
        ValueError: epsilon negative, delta outside (0, 1).
    """
    between(0, 1, delta=delta)
    if epsilon == math.inf:
        return math.inf
    non_negative(epsilon=epsilon)
    epsilon = min(epsilon, _LARGEST_MU**2 / 4)

    def excess(mu: float) -> float:
        return float(gaussian_log_delta(mu, epsilon)) - math.log(delta)

    # Two bounds from below: delta <= Phi(-x), and delta <= mu phi(0).
    quantile = -float(ndtri(delta))
    root = math.hypot(quantile, math.sqrt(2) * math.sqrt(epsilon))
    by_tail = epsilon / (quantile + root) * 2 if quantile > 0 else root - quantile
    low = max(by_tail, delta * math.sqrt(2 * math.pi))
    while excess(low) > 0:
        low /= 2
    high = 2 * low
    while excess(high) <= 0:
        high *= 2
    found = brentq(lambda times: excess(times * low), 1.0, high / low, xtol=_TINY, rtol=_CLOSEST)
    mu = float(found) * low
    while excess(mu) > 0:
        mu = min(mu * (1 - _CLOSEST), math.nextafter(mu, 0.0))
    return mu


def _mills(x: Any) -> Any:
    """Return R(x) = Phi(-x) / phi(x)."""
    return math.sqrt(math.pi / 2) * erfcx(x / math.sqrt(2))


def _mills_slope(x: Any) -> Any:
    """Return -R'(x) = 1 - x R(x), which is above 0."""
    inverse = 1 / np.maximum(x, _FAR) ** 2
    series = 1.0
    for odd in (17, 15, 13, 11, 9, 7, 5, 3):
        series = 1 - odd * inverse * series
    return np.where(x < _FAR, 1 - x * _mills(x), inverse * series)


def _mills_difference(x: Any, mu: Any) -> Any:
    """Return R(x) - R(x + mu) without cancellation, for x >= -mu/2.

    A difference over a short way is integrated by Gauss and Legendre's rule: on it -R' is smooth,
    and all terms are positive.
    """
    x, mu = np.asarray(x), np.asarray(mu)
    nodes = x[..., None] + mu[..., None] * (_NODES + 1) / 2
    short = mu * (_mills_slope(nodes) @ _WEIGHTS) / 2
    return np.where(mu <= np.maximum(1, x / 2), short, _mills(x) - _mills(x + mu))


def _difference_to_half_square(mu: Any, epsilon: Any) -> Any:
    """Return epsilon - mu^2/2, rounded once: at mu = 1e9 the square's own rounding is 64.

    Source: Dekker, Numerische Mathematik 18, 1971: the rounding error of a product.
    """
    split = mu * 134217729.0  # 2^27 + 1
    high = split - (split - mu)
    low = mu - high
    square = mu * mu
    error = ((high * high - square) + 2 * high * low) + low * low
    return (epsilon - square / 2) - error / 2
