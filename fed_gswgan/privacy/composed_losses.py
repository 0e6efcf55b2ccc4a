"""Epsilon of many rounds whose privacy losses add up."""

import math
import sys

import numpy as np
from scipy import fft
from scipy.optimize import brentq, minimize_scalar

from fed_gswgan.privacy.sampled_gaussian import RoundLosses

LARGEST_TRANSFORM = 2**24  # numbers; half a gigabyte of working memory
# Share of the tilted distribution that is to pass epsilon; a larger one would make more of rare
# large losses, and so widen the transform.
BEYOND = 1e-3
OUTSIDE = 1e-14  # share of it that may lie outside of the transform


class TooManyPointsError(ValueError):
    """The sum of the losses does not fit into memory on so fine a grid."""


def composed_epsilon(losses: RoundLosses, rounds: int, delta: float) -> float:
    """Return the smallest epsilon >= 0 at ``delta`` of ``rounds`` independent such losses.

    The masses are multiplied by e^(order x loss) before they are convolved and divided by it
    after, with an order that moves the sum towards epsilon. So the rounding of the Fourier
    transform, about rounds x 1e-16, is small beside delta; without it, it would be added to it.

    Raises:
        TooManyPointsError: more than ``LARGEST_TRANSFORM`` points.

    Source: convolution by Fourier transform, arXiv 1906.03049; tilting is Esscher's.
    """
    finite_delta = delta + math.expm1(rounds * math.log1p(-losses.infinite))
    moments = _TiltedLosses(losses)
    # Tilted by the best order about one sum in a few passes epsilon, untilted one in 1 / delta.
    order = moments.best_order(rounds, finite_delta)
    order *= max(0.0, 1 - math.log(BEYOND) / math.log(finite_delta))
    low, high = moments.window(order, rounds)
    sums = moments.convolved(order, rounds, low, high)
    sum_losses = losses.step * np.arange(low, high + 1)
    scale = rounds * moments.log_mean(order)

    def log_delta(epsilon: float) -> float:
        first = int(np.searchsorted(sum_losses, epsilon, side="right"))
        beyond = sum_losses[first:] - epsilon
        total = float(sums[first:] @ (np.exp(-order * beyond) * -np.expm1(-beyond)))
        return scale - order * epsilon + math.log(max(total, sys.float_info.min))

    target = math.log(finite_delta)
    lowest = max(0.0, float(sum_losses[0]))
    if log_delta(lowest) <= target:
        return lowest
    return float(brentq(lambda epsilon: log_delta(epsilon) - target, lowest, sum_losses[-1]))


class _TiltedLosses:
    """The losses of a round, weighted by e^(order x loss)."""

    def __init__(self, losses: RoundLosses) -> None:
        kept = np.flatnonzero(losses.masses)
        self._lowest = losses.lowest + int(kept[0])
        self._step = losses.step
        with np.errstate(divide="ignore"):
            self._log_masses = np.log(losses.masses[kept[0] : kept[-1] + 1])
        self._losses = losses.step * (self._lowest + np.arange(len(self._log_masses)))

    def log_mean(self, order: float) -> float:
        """Return the log of the mean of e^(order x loss), over finite losses."""
        logs = self._log_masses + order * self._losses
        largest = float(logs.max())
        return largest + math.log(float(np.exp(logs - largest).sum()))

    def best_order(self, rounds: int, delta: float) -> float:
        """Return the order whose Rényi bound on epsilon is the smallest.

        Source: the conversion is that of arXiv 2004.00010, proposition 12.
        """

        def bound(log_order: float) -> float:
            order = math.exp(log_order)
            smaller = order * -math.log1p(1 / order) - math.log1p(order)
            return (rounds * self.log_mean(order) - math.log(delta) + smaller) / order

        scale = math.log(self._losses[-1])
        found = minimize_scalar(
            bound, bounds=(-scale - 30, -scale + 20), method="bounded", options={"xatol": 1e-3}
        )
        return math.exp(float(found.x))

    def window(self, order: float, rounds: int) -> tuple[int, int]:
        """Return the indices between which all but ``OUTSIDE`` of the tilted sum lies.

        By Chernoff's bound, at the best of many orders around the Gaussian's.
        """
        weights = np.exp(self._log_masses + order * self._losses - self.log_mean(order))
        mean = float(weights @ self._losses)
        spread = math.sqrt(rounds * float(weights @ (self._losses - mean) ** 2))
        rarity = -math.log(OUTSIDE)
        gaussian = math.sqrt(2 * rarity) / max(spread, self._step)
        low, high = rounds * self._losses[0], rounds * self._losses[-1]
        for shift in gaussian * np.geomspace(1e-4, 10, 40):
            up = rounds * (self.log_mean(order + shift) - self.log_mean(order)) + rarity
            down = rounds * (self.log_mean(order - shift) - self.log_mean(order)) + rarity
            low, high = max(low, -down / shift), min(high, up / shift)
        return math.floor(low / self._step), math.ceil(high / self._step)

    def convolved(self, order: float, rounds: int, low: int, high: int) -> np.ndarray:
        """Return the probabilities of the tilted sum at the indices low .. high.

        Raises:
            TooManyPointsError: too many of them.
        """
        length = max(high - low + 1, len(self._losses))
        if length > LARGEST_TRANSFORM:
            raise TooManyPointsError(f"{length} points are more than {LARGEST_TRANSFORM}")
        length = fft.next_fast_len(length, real=True)
        weights = np.exp(self._log_masses + order * self._losses - self.log_mean(order))
        spectrum = fft.rfft(weights, length)
        sums = fft.irfft(spectrum**rounds, length)
        sums = np.roll(sums, -((low - rounds * self._lowest) % length))
        return np.asarray(np.maximum(sums[: high - low + 1], 0.0))  # what is below 0 is rounding
