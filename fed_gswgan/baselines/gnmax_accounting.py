"""The data-dependent Rényi accounting of noisy votes, which PATE and G-PATE are published with.

It bounds the divergence of these data's outcome from that of any neighbours, and not the other way
round; and it reads the votes, so the epsilon it gives is itself private. Shown beside the true one,
for comparison.

Shapes: Q queries, V bins of a vote, R Rényi orders.
"""

import math

import numpy as np
from scipy.special import log_ndtr

# G-PATE's code (arXiv 1906.09338) has all up to 200; between large ones epsilon hardly changes.
ORDERS = np.concatenate([np.arange(2.0, 20), np.arange(20.0, 201, 10)])


def votes_rdp(counts_QV: np.ndarray, noise_stddev: float) -> np.ndarray:
    """Return the Rényi bound at ``ORDERS`` (R,) of releasing each query's noisy winner.

    Args:
        counts_QV: votes, before the noise.
        noise_stddev: on each count.

    Source: Papernot et al., arXiv 1802.08908, proposition 7 for the chance of another winner.
    """
    if not len(counts_QV):
        return np.zeros_like(ORDERS)
    gaps_QV = np.sort(counts_QV.max(axis=1, keepdims=True) - counts_QV, axis=1)[:, 1:]
    log_chances_QV = log_ndtr(-gaps_QV / (math.sqrt(2) * noise_stddev))
    return _rdp(np.logaddexp.reduce(log_chances_QV, axis=1), noise_stddev)


def threshold_rdp(counts_QV: np.ndarray, threshold: float, noise_stddev: float) -> np.ndarray:
    """Return the Rényi bound at ``ORDERS`` (R,) of telling whether each query's winner has enough.

    Args:
        counts_QV: votes, before the noise.
        threshold: the noisy largest count must reach it.
        noise_stddev: on the largest count, which one teacher moves by 1 and not by sqrt(2).
    """
    excess_Q = (counts_QV.max(axis=1) - threshold) / noise_stddev
    return _rdp(log_ndtr(-np.abs(excess_Q)), math.sqrt(2) * noise_stddev)


def epsilon_of_rdp(rdp_R: np.ndarray, delta: float) -> float:
    """Return the epsilon of a Rényi bound at ``ORDERS``.

    Source: arXiv 1702.07476, proposition 3.
    """
    return float((rdp_R - math.log(delta) / (ORDERS - 1)).min())


def _rdp(log_q_Q: np.ndarray, sigma: float) -> np.ndarray:
    """Return the sum over queries of the smaller of both bounds, data-dependent or not.

    Args:
        log_q_Q: logarithm of the chance that the outcome is not the likeliest.
        sigma: such that the bound that no data enter is order / sigma^2.

    Source: arXiv 1802.08908, theorem 6, with the orders of proposition 10.
    """
    free_R = ORDERS / sigma**2
    log_q_Q1 = np.minimum(log_q_Q, 0.0)[:, None]
    with np.errstate(all="ignore"):  # where the theorem does not apply, its terms may be anything
        second_Q1 = sigma * np.sqrt(-log_q_Q1)
        first_Q1 = second_Q1 + 1
        largest_log_q_Q1 = (second_Q1 - 1) * second_Q1 / sigma**2 - second_Q1 * (
            np.log(first_Q1 / (first_Q1 - 1)) + np.log(second_Q1 / (second_Q1 - 1))
        )
        log_likely_Q1 = np.log1p(-np.exp(log_q_Q1))
        log_a_Q1 = log_likely_Q1 - np.log1p(
            -np.exp((log_q_Q1 + second_Q1 / sigma**2) * (second_Q1 - 1) / second_Q1)
        )
        log_b_Q1 = first_Q1 / sigma**2 - log_q_Q1 / (first_Q1 - 1)
        bound_QR = np.logaddexp(
            log_likely_Q1 + (ORDERS - 1) * log_a_Q1, log_q_Q1 + (ORDERS - 1) * log_b_Q1
        ) / (ORDERS - 1)
        applies_QR = (second_Q1 > 1) & (first_Q1 >= ORDERS) & (log_q_Q1 <= largest_log_q_Q1)
        applies_QR &= np.isfinite(bound_QR)
    total_R: np.ndarray = np.where(applies_QR, np.minimum(bound_QR, free_R), free_R).sum(axis=0)
    return total_R
