"""What computing with finitely many digits adds to delta.

Gaussian noise that is drawn and added in floating point is not private: which numbers the sum can
be depends on the value that was added to, so that a single reply may prove the value was not zero.
``SecureNoise`` releases instead the exact sum of value and ideal noise, rounded to a public grid;
rounding happens after the noise, so it costs nothing, and so do the clamp, the cast to float32 and
the wire's number format. What is left are the draws that are undecided at the sampler's last bit.

Assumed:
    * The operating system's generator cannot be told from true random bits.
    * SciPy's ``ndtri`` is off by less than 2^-37 where it is used (measured: 2^-48), and mpmath's
      ``erfc`` by less than the last bit that is compared, 32 bits short of its precision.
    * Time is not observed: further bits of a draw take longer than none.
"""

import math

import numpy as np

from fed_gswgan.privacy.rounded_gaussian import MAX_DEPTH
from fed_gswgan.validation import at_least, non_negative

# A draw is undecided if its bits are within 2 of a boundary's: a chance of 5 x 2^-depth for each of
# the fewer than 2^20 boundaries within 150 deviations of 2^11 steps, and for all those beyond
# together, where hardly more than that is left of the tail.
LOG2_UNDECIDED = 24 - MAX_DEPTH


def finite_arithmetic_log10_delta(coordinates: int, epsilon: float) -> float:
    """Return the logarithm to base 10 of what is to be added to delta at ``epsilon``.

    What is released differs from the exactly rounded Gaussian with probability at most tau =
    coordinates x 2^(24 - depth), so delta becomes delta + (1 + e^epsilon) tau. A logarithm, since
    both factors leave the range of float.

    Args:
        coordinates: all that a user ever released: participations x rows x pixels.
        epsilon: at least 0.

    Returns:
        ``-math.inf`` when nothing was released.
    """
    at_least(0, coordinates=coordinates)
    non_negative(epsilon=epsilon)
    if coordinates == 0:
        return -math.inf
    tau = (math.log2(coordinates) + LOG2_UNDECIDED) * math.log10(2)
    return tau + float(np.logaddexp(0.0, epsilon)) / math.log(10)
