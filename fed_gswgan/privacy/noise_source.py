"""Where Gaussian noise comes from: the operating system on a device, a seed in a simulation."""

import math
import secrets
from typing import Protocol

import numpy as np

from fed_gswgan.privacy.rounded_gaussian import rounded_gaussian

# The secure grid: a step is 2^-10 of the noise's standard deviation, or less, so that the rounding
# is invisible beside the noise.
GRID_BITS = 10
LARGEST_CENTER = 2.0**50  # steps


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
    """Noise from the operating system's generator: the Gaussian, rounded exactly to a fixed grid.

    Guarantees:
        * What is released is the whole multiple of a grid step that is nearest to values +
          stddev Z, with the exact probability of each; ``finite_arithmetic`` has what is left
          open. The step is a power of two and depends on ``stddev`` alone, so which floating-point
          numbers occur tells nothing of ``values``.
        * All bits are ``secrets``' own, drawn when they are used: no seed, and nothing that a
          forked process would share.
        * 64 bits are drawn for each coordinate, whatever its value; further ones, once in some
          thirty million coordinates, where those leave two multiples open.

    Source: the attack on naive floating-point noise is Mironov's (CCS 2012); rounding after the
        addition is its remedy.
    """

    def add_noise(self, values: np.ndarray, stddev: float) -> np.ndarray:
        """Return ``values`` plus noise on the grid, float64.

        Args:
            values: clamped to 2^50 steps, which no clipped value comes near.
            stddev: above 0.

        Raises:
            OSError: the operating system has no random bits; also ``NotImplementedError``.
        """
        words = np.frombuffer(secrets.token_bytes(8 * values.size), dtype=np.uint64)
        step = math.ldexp(1.0, math.frexp(stddev)[1] - 1 - GRID_BITS)  # up to stddev / 2^10
        limit = step * LARGEST_CENTER
        # Exact but for values below 2^-900; clipping's slack is far more than that.
        centers = np.clip(np.asarray(values, dtype=np.float64).ravel(), -limit, limit) / step
        steps = rounded_gaussian(centers, stddev / step, words, secrets.randbits)
        return (steps * step).reshape(values.shape)


def named_noise_source(name: str, randomness: np.random.Generator) -> NoiseSource:
    """Return the source that the setting ``noise-source`` names.

    Args:
        name: ``secure`` or ``seeded``.
        randomness: of a seeded source; a secure one never touches it.
    """
    return SeededNoise(randomness) if name == "seeded" else SecureNoise()
