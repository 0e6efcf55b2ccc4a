"""Where Gaussian noise comes from: the operating system on a device, a seed in a simulation."""

import math
import secrets
from typing import Protocol

import numpy as np
from scipy.special import ndtri

# The secure grid: 2^-10 of the noise's standard deviation, so that the rounding is invisible beside
# the noise while the values that can be reached no longer depend on what was added to.
GRID_PER_STDDEV = 2**10


class NoiseSource(Protocol):
    """Adds Gaussian noise to a value that is about to be released."""

    def add_noise(self, values: np.ndarray, stddev: float) -> np.ndarray:
        """Return ``values`` plus independent N(0, stddev^2) on each coordinate, float64."""


class SeededNoise:
    """Reproducible noise: whoever knows the seed can subtract it, so it protects nobody.

    For simulations, where two runs and two runtimes must agree.
    """

    def __init__(self, randomness: np.random.Generator) -> None:
        self._randomness = randomness

    def add_noise(self, values: np.ndarray, stddev: float) -> np.ndarray:
        """Return ``values`` plus noise, float64."""
        noise = self._randomness.standard_normal(values.shape)
        return np.asarray(values, dtype=np.float64) + stddev * noise


class SecureNoise:
    """Noise from the operating system's generator, rounded to a fixed grid.

    Guarantees:
        * Every uniform holds 64 random bits of ``secrets``, never a seedable generator's.
        * What is released is a whole multiple of a grid step that depends on ``stddev`` alone, a
          power of two, so that which floating-point numbers occur tells nothing of ``values``.
        * The number of draws depends on the shape alone.

    Source: the attack on naive floating-point noise is Mironov's (CCS 2012); rounding after the
        addition is its remedy.
    """

    def add_noise(self, values: np.ndarray, stddev: float) -> np.ndarray:
        """Return ``values`` plus noise on the grid, float64."""
        words = np.frombuffer(secrets.token_bytes(8 * values.size), dtype=np.uint64)
        noise = _standard_normal(words).reshape(values.shape)
        step = 2.0 ** math.floor(math.log2(stddev / GRID_PER_STDDEV))
        noisy = np.asarray(values, dtype=np.float64) + stddev * noise
        return np.asarray(np.round(noisy / step) * step)


def _standard_normal(words: np.ndarray) -> np.ndarray:
    """Turn 64 random bits each into a standard normal by inverting the distribution.

    One bit is the sign and 63 bits the tail's probability in (0, 1/2), at which the inverse is
    accurate; tails reach 9.1 standard deviations.
    """
    sign = np.where(words & np.uint64(1), 1.0, -1.0)
    tail = ((words >> np.uint64(1)).astype(np.float64) + 0.5) * 2.0**-64
    return np.asarray(sign * -ndtri(tail))
