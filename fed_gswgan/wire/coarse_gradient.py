"""Gradients in 4, 2 or 1 bits a value: unbiased, since the noise does what dithering does.

A coordinate is a small signal in Gaussian noise. Rounding the two to few levels is again a noisy
reading of the signal: its mean is the signal times a public constant, which decoding divides by.
What is lost is a share of the information: about 1, 12 and 36 % at 4, 2 and 1 bits.
"""

import math

from fed_gswgan.wire.number_format import BITS

# End of the range in standard deviations of the noise, near what keeps most information.
COARSE_RANGE = {"uint4": 2.5, "uint2": 1.5, "uint1": 1.0}


def coarse_gain(codec: str) -> float:
    """Return what rounded values are multiplied by, so that their mean is the signal; 1 for others.

    The mean of a rounded value grows with the signal, at 0, by the sum over thresholds of the
    distance of levels times the density of the noise there. A coordinate of g C in noise of n C
    keeps a relative bias of at most (g / n)^2 / 6, at 1 bit; g is 1 only if a row is one pixel.

    Source: the derivative of sum_k level_k P(threshold_k < signal + noise < threshold_k+1).
    """
    if codec not in COARSE_RANGE:
        return 1.0
    end, gaps = COARSE_RANGE[codec], 2 ** BITS[codec] - 1
    distance = 2 * end / gaps
    thresholds = [-end + distance * (k + 0.5) for k in range(gaps)]
    density = sum(math.exp(-(t**2) / 2) for t in thresholds) / math.sqrt(2 * math.pi)
    return float(1 / (distance * density))
