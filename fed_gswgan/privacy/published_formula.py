"""The accounting GS-WGAN was published with, for comparison only: it understates epsilon.

All rows of a round come from the one critic that was selected, so they share one secret coin. The
published accounting gives each row a coin of its own: rounds x samples subsampled releases of one
row, where there are rounds of all rows together.
"""

import math

import numpy as np
from scipy.special import gammaln, logsumexp

from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.neighboring import NeighboringRelation

LARGEST_ORDER = 1024


def published_epsilon(
    event: SanitizedGradientEvent, sampling_probability: float, rounds: int, delta: float
) -> float:
    """Return the epsilon that the paper's accounting gives; not a guarantee.

    Args:
        event: a round's release.
        sampling_probability: cohort over population.
        rounds: how many.
        delta: in (0, 1).

    Source: GS-WGAN, arXiv 2006.08265; the conversion of a Rényi bound is that of arXiv 1702.07476,
        proposition 3. Between two whole orders the bound is a straight line, so its best lies at
        one of them.
    """
    relation = NeighboringRelation.REPLACE_ONE
    row_sigma = event.noise_stddev / relation.sensitivity_multiple
    releases = rounds * (event.samples if event.clipping == "sample" else 1)
    return min(
        (releases * _log_moment(order, row_sigma, sampling_probability) - math.log(delta))
        / (order - 1)
        for order in range(2, LARGEST_ORDER + 1)
    )


def _log_moment(order: int, sigma: float, sampling_probability: float) -> float:
    """Return (order - 1) x the Rényi bound of one sampled Gaussian release.

    Args:
        order: whole, from 2 on.
        sigma: noise over sensitivity.
        sampling_probability: drawn without replacement.

    Source: arXiv 1808.00087, theorem 9, with an unbounded loss.
    """
    j = np.arange(2, order + 1)
    log_binomial = gammaln(order + 1) - gammaln(j + 1) - gammaln(order - j + 1)
    log_factor = np.full(len(j), math.log(2))
    variance = sigma**2  # of a Gaussian whose Rényi divergence of order j is j / (2 variance)
    log_factor[0] = min(math.log(2), math.log(4) + _log_one_minus_exp(-1 / variance))
    exponents = (j - 1) * j / (2 * variance)
    terms = j * math.log(sampling_probability) + log_binomial + exponents + log_factor
    return float(logsumexp(np.append(terms, 0.0)))


def _log_one_minus_exp(value: float) -> float:
    """Return log(1 - e^value) for value < 0."""
    return math.log(-math.expm1(value))
