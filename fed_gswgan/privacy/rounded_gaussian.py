"""The Gaussian rounded to whole numbers, each with its exact probability.

A normal Z is the inverse of its distribution at a uniform U of endlessly many bits. Of those, only
as many are drawn as tell which whole number center + scale Z is nearest to. 64 bits and float64,
with a margin for all of its errors, decide all draws but one in some thirty million; that one gets
further bits and is compared with the boundaries beside it at growing precision.
"""

import math
from collections.abc import Callable
from fractions import Fraction

import mpmath  # type: ignore[import-untyped]
import numpy as np
from scipy.special import ndtri, ndtri_exp

# In standard deviations: ndtri is taken to be off by less than half of this (against mpmath it is
# by 2^-48), which leaves the other half for rounding its argument and its result.
NDTRI_ERROR = 2.0**-36
WORD_BITS = 63  # of a word's 64; the last one is the sign
MAX_DEPTH = WORD_BITS * 2**8  # bits of U, after which a draw is left as it stands


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
