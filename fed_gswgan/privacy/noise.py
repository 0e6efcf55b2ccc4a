"""Gaussian noise on a public grid: exact, from the operating system, or seeded, for simulations."""

import math
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from fractions import Fraction

import mpmath  # type: ignore[import-untyped]
import numpy as np
from scipy.special import ndtri, ndtri_exp

# A fine step is 2^-10 of the noise's standard deviation, or less: rounding is invisible beside it.
GRID_BITS = 10
LARGEST_CENTER = 2.0**50  # fine steps

# In standard deviations: ndtri is taken to be off by less than half of this (against mpmath it is
# by 2^-48), which leaves the other half for rounding its argument and its result.
NDTRI_ERROR = 2.0**-36
WORD_BITS = 63  # of a word's 64; the last one is the sign
MAX_DEPTH = WORD_BITS * 2**8  # bits of U, after which a draw is left as it stands


def fine_step(stddev: float) -> float:
    """Return the power of two in (stddev / 2^11, stddev / 2^10]."""
    return math.ldexp(1.0, math.frexp(stddev)[1] - 1 - GRID_BITS)


class NoiseSource(ABC):
    """Adds Gaussian noise to values that are about to be released."""

    @abstractmethod
    def draw(self, values: np.ndarray, stddev: float, step: float) -> np.ndarray:
        """Return values plus independent N(0, stddev^2), rounded to whole steps, int64.

        Args:
            values: float64 of any shape.
            stddev: above 0.
            step: a power of two, at least ``fine_step(stddev)``.
        """

    def add_noise(self, values: np.ndarray, stddev: float) -> np.ndarray:
        """Return values plus noise on the fine grid, float64."""
        fine = fine_step(stddev)
        return self.draw(values, stddev, fine) * fine


class SeededNoise(NoiseSource):
    """Reproducible noise: whoever knows the seed can subtract it, so it protects nobody.

    For simulations, where two runs and two runtimes must agree.
    """

    def __init__(self, randomness: np.random.Generator) -> None:
        self._randomness = randomness

    def draw(self, values: np.ndarray, stddev: float, step: float) -> np.ndarray:
        """Return values plus noise in steps."""
        noise = stddev * self._randomness.standard_normal(values.shape)
        return np.rint((values + noise) / step).astype(np.int64)


class SecureNoise(NoiseSource):
    """Noise from the operating system's generator: the Gaussian, rounded exactly to a fixed grid.

    Guarantees:
        * What is released is the whole multiple of a fine step nearest to values + stddev Z, with
          the exact probability of each, rounded again to the coarser grid that contains the fine
          one. Both steps are public powers of two, so which numbers occur tells nothing of
          ``values``.
        * All bits are ``secrets``' own, drawn when they are used: no seed, and nothing that a
          forked process would share.
        * 64 bits are drawn for each coordinate, whatever its value; further ones, once in some
          thirty million coordinates, where those leave two multiples open.

    Source: the attack on naive floating-point noise is Mironov's (CCS 2012); rounding after the
        addition is its remedy.
    """

    def draw(self, values: np.ndarray, stddev: float, step: float) -> np.ndarray:
        """Return values plus noise in steps.

        Raises:
            OSError: the operating system has no random bits; also ``NotImplementedError``.
        """
        words = np.frombuffer(secrets.token_bytes(8 * values.size), dtype=np.uint64)
        fine = fine_step(stddev)
        limit = fine * LARGEST_CENTER  # no bounded value comes near
        # Exact but for values below 2^-900; clipping's slack is far more than that.
        centers = np.clip(np.asarray(values, dtype=np.float64).ravel(), -limit, limit) / fine
        nested = round(step / fine)
        if nested > 1:  # below, all ties are rounded up: on average by half a fine step
            centers -= 0.5
        drawn = rounded_gaussian(centers, stddev / fine, words, secrets.randbits)
        steps = (drawn.astype(np.int64) + nested // 2) // nested
        return steps.reshape(values.shape)


def named_noise_source(name: str, randomness: np.random.Generator) -> NoiseSource:
    """Return the source that the setting ``noise-source`` names.

    Args:
        name: ``secure`` or ``seeded``.
        randomness: of a seeded source; a secure one never touches it.
    """
    return SeededNoise(randomness) if name == "seeded" else SecureNoise()


def rounded_gaussian(
    centers: np.ndarray, scale: float, words: np.ndarray, more_bits: Callable[[int], int]
) -> np.ndarray:
    """Return round(centers + scale Z), Z independent standard normals.

    Args:
        centers: float64, at most 2^50 in size; a NaN stays one.
        scale: the noise's standard deviation, in [2^10, 2^11).
        words: uint64, 64 secret random bits for each center.
        more_bits: returns a number of so many further secret random bits.

    Returns:
        Whole numbers as float64, none of them a negative zero, whose sign would say on which side
        of zero the unrounded number lay.
    """
    signs = np.where(words & np.uint64(1), 1.0, -1.0)
    tails = (words >> np.uint64(1)).astype(np.float64)
    moved = centers - scale * signs * ndtri((tails + 0.5) * 2.0 ** -(WORD_BITS + 1))
    # A word leaves an interval of U, from tails to tails + 1 in units of 2^-63, whose middle was
    # taken. Where a normal's tail probability is U its density is at least 0.79 U, so that half of
    # the interval is at most 0.5 / (0.79 tails) wide in Z.
    with np.errstate(divide="ignore"):
        margin = scale * (NDTRI_ERROR + 1 / tails)
    margin += (np.abs(centers) + np.abs(moved)) * 2.0**-51
    rounded = np.rint(moved)
    for i in np.flatnonzero(np.rint(moved - margin) < np.rint(moved + margin)):
        tail = _Tail(int(words[i]) >> 1, more_bits)
        rounded[i] = _nearest(Fraction(centers[i]), Fraction(scale), int(signs[i]), tail)
    return np.asarray(rounded + 0.0)  # -0.0 + 0.0 is 0.0


class _Tail:
    """How likely a normal is to be larger in size than Z: a uniform U on (0, 1), bit by bit."""

    def __init__(self, bits: int, more_bits: Callable[[int], int]) -> None:
        self._bits = bits
        self._depth = WORD_BITS
        self._more_bits = more_bits

    def size(self) -> float:
        """Return |Z| up to a small error."""
        while self._bits < 2**32 and self._depth < MAX_DEPTH:
            self._draw()
        log_tail = math.log(2 * self._bits + 1) - (self._depth + 2) * math.log(2)
        return -float(ndtri_exp(log_tail))

    def exceeds(self, size: Fraction) -> bool:
        """Tell whether |Z| > size, drawing bits until it is certain or ``MAX_DEPTH`` is reached."""
        # U lies between bits and bits + 1, what it is compared with within 1 of bound.
        while abs(self._bits - (bound := _tail_bound(size, self._depth))) <= 2:
            if self._depth >= MAX_DEPTH:
                break
            self._draw()
        return self._bits < bound

    def _draw(self) -> None:
        self._bits = self._bits << self._depth | self._more_bits(self._depth)
        self._depth *= 2


def _tail_bound(size: Fraction, depth: int) -> int:
    """Return P(|Z| > size) in units of 2^-depth, off by at most 1."""
    context = mpmath.MPContext()  # its own: the precision of mpmath.mp is everybody's
    context.prec = depth + 32
    deviations = context.mpf(size.numerator) / size.denominator
    return int(context.ldexp(context.erfc(deviations / context.sqrt(2)), depth))


def _nearest(center: Fraction, scale: Fraction, sign: int, tail: _Tail) -> int:
    """Return the whole number nearest to center + scale sign |Z|."""

    def is_above(boundary: Fraction) -> bool:
        return tail.exceeds(sign * (boundary - center) / scale) == (sign > 0)

    half = Fraction(1, 2)
    nearest = round(center + scale * sign * Fraction(tail.size()))
    while not is_above(nearest - half):
        nearest -= 1
    while is_above(nearest + half):
        nearest += 1
    return nearest
