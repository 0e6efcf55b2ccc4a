"""The noise at which declared releases together meet a target epsilon."""

import math
from collections.abc import Callable

from scipy.optimize import brentq

from fed_gswgan.privacy.declared_releases import DeclaredRelease, epsilon_of
from fed_gswgan.validation import between, positive

CLOSE = 5e-4  # relative, of the noise
RATIO = 2.0  # of the noises that are tried until two enclose the target
LARGEST_NOISE = 2.0**40


def noise_for(
    releases_at: Callable[[float], tuple[DeclaredRelease, ...]], epsilon: float, delta: float
) -> float:
    """Return the smallest noise multiplier that keeps ``epsilon``, and never a smaller one.

    Args:
        releases_at: what is declared at a noise multiplier; more noise must not cost more.
        epsilon: the target, above 0.
        delta: in (0, 1).

    Returns:
        Within a thousandth of the smallest.

    Raises:
        ValueError: epsilon or delta out of range, or a target that no noise meets or that needs
            none.
    """
    positive(epsilon=epsilon)
    between(0, 1, delta=delta)

    def excess(log_noise: float) -> float:
        return epsilon_of(releases_at(math.exp(log_noise)), delta) - epsilon

    low, high = _enclosing(excess, epsilon)
    noise = math.exp(float(brentq(excess, low, high, xtol=CLOSE / 4)))
    while excess(math.log(noise)) > 0:
        noise *= 1 + CLOSE / 2
    return noise


def _enclosing(excess: Callable[[float], float], epsilon: float) -> tuple[float, float]:
    """Return logarithms of two noises, too little and enough."""
    step, end = math.log(RATIO), math.log(LARGEST_NOISE)
    low = high = 0.0
    while excess(high) > 0:
        low, high = high, high + step
        if high > end:
            raise ValueError(f"epsilon={epsilon} is met by no noise up to {LARGEST_NOISE:g}")
    while low == high or excess(low) <= 0:
        high, low = low, low - step
        if low < -end:
            raise ValueError(f"epsilon={epsilon} is met without noise, so none is the smallest")
    return low, high
