"""Epsilon of many rounds whose privacy losses add up."""

import math
import sys
from collections.abc import Sequence

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
    """Return ``total_epsilon`` of ``rounds`` independent such losses."""
    return total_epsilon([(losses, rounds)], delta)


def total_epsilon(parts: Sequence[tuple[RoundLosses, int]], delta: float) -> float:
    """Return the smallest epsilon >= 0 at ``delta`` of independent losses that add up.

    The masses are multiplied by e^(order x loss) before they are convolved and divided by it
    after, with an order that moves the sum towards epsilon. So the rounding of the Fourier
    transform, about rounds x 1e-16, is small beside delta; without it, it would be added to it.

    Args:
        parts: the losses of a round and how many such rounds there are; all on one step.
        delta: in (0, 1).

    Raises:
        TooManyPointsError: more than ``LARGEST_TRANSFORM`` points.

    Source: convolution by Fourier transform, arXiv 1906.03049; tilting is Esscher's.
    """
    certain = sum(rounds * math.log1p(-losses.infinite) for losses, rounds in parts)
    finite_delta = delta + math.expm1(certain)
    moments = _TiltedSum(parts)
    # Tilted by the best order about one sum in a few passes epsilon, untilted one in 1 / delta.
    order = moments.best_order(finite_delta)
    order *= max(0.0, 1 - math.log(BEYOND) / math.log(finite_delta))
    low, high = moments.window(order)
    sums = moments.convolved(order, low, high)
    sum_losses = moments.step * np.arange(low, high + 1)
    scale = moments.log_mean(order)

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
        self.lowest = losses.lowest + int(kept[0])
        with np.errstate(divide="ignore"):
            self._log_masses = np.log(losses.masses[kept[0] : kept[-1] + 1])
        self.losses = losses.step * (self.lowest + np.arange(len(self._log_masses)))

    def log_mean(self, order: float) -> float:
        """Return the log of the mean of e^(order x loss), over finite losses."""
        logs = self._log_masses + order * self.losses
        largest = float(logs.max())
        return largest + math.log(float(np.exp(logs - largest).sum()))

    def weights(self, order: float) -> np.ndarray:
        """Return the probabilities of the tilted losses."""
        return np.asarray(np.exp(self._log_masses + order * self.losses - self.log_mean(order)))

    def mean_and_variance(self, order: float) -> tuple[float, float]:
        """Return those of the tilted losses."""
        weights = self.weights(order)
        mean = float(weights @ self.losses)
        return mean, float(weights @ (self.losses - mean) ** 2)


class _TiltedSum:
    """The sum of all rounds' losses, weighted by e^(order x sum)."""

    def __init__(self, parts: Sequence[tuple[RoundLosses, int]]) -> None:
        self.step = parts[0][0].step
        self._parts = [(_TiltedLosses(losses), rounds) for losses, rounds in parts]

    def log_mean(self, order: float) -> float:
        """Return the log of the mean of e^(order x sum), over finite sums."""
        return sum(rounds * tilted.log_mean(order) for tilted, rounds in self._parts)

    def best_order(self, delta: float) -> float:
        """Return the order whose Rényi bound on epsilon is the smallest.

        Source: the conversion is that of arXiv 2004.00010, proposition 12.
        """

        def bound(log_order: float) -> float:
            order = math.exp(log_order)
            smaller = order * -math.log1p(1 / order) - math.log1p(order)
            return (self.log_mean(order) - math.log(delta) + smaller) / order

        scale = math.log(max(tilted.losses[-1] for tilted, _ in self._parts))
        found = minimize_scalar(
            bound, bounds=(-scale - 30, -scale + 20), method="bounded", options={"xatol": 1e-3}
        )
        return math.exp(float(found.x))

    def window(self, order: float) -> tuple[int, int]:
        """Return the indices between which all but ``OUTSIDE`` of the tilted sum lies.

        By Chernoff's bound, at the best of many orders around the Gaussian's.
        """
        spread = math.sqrt(
            sum(rounds * tilted.mean_and_variance(order)[1] for tilted, rounds in self._parts)
        )
        rarity = -math.log(OUTSIDE)
        gaussian = math.sqrt(2 * rarity) / max(spread, self.step)
        low = sum(rounds * float(tilted.losses[0]) for tilted, rounds in self._parts)
        high = sum(rounds * float(tilted.losses[-1]) for tilted, rounds in self._parts)
        here = self.log_mean(order)
        for shift in gaussian * np.geomspace(1e-4, 10, 40):
            up = self.log_mean(order + shift) - here + rarity
            down = self.log_mean(order - shift) - here + rarity
            low, high = max(low, -down / shift), min(high, up / shift)
        return math.floor(low / self.step), math.ceil(high / self.step)

    def convolved(self, order: float, low: int, high: int) -> np.ndarray:
        """Return the probabilities of the tilted sum at the indices low .. high.

        Raises:
            TooManyPointsError: too many of them.
        """
        length = max(high - low + 1, *(len(tilted.losses) for tilted, _ in self._parts))
        if length > LARGEST_TRANSFORM:
            raise TooManyPointsError(f"{length} points are more than {LARGEST_TRANSFORM}")
        length = fft.next_fast_len(length, real=True)
        spectrum, lowest = np.ones(1), 0
        for tilted, rounds in self._parts:
            spectrum = spectrum * fft.rfft(tilted.weights(order), length) ** rounds
            lowest += rounds * tilted.lowest
        sums = np.roll(fft.irfft(spectrum, length), -((low - lowest) % length))
        return np.asarray(np.maximum(sums[: high - low + 1], 0.0))  # what is below 0 is rounding
