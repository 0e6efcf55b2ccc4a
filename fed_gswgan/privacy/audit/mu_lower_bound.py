"""How far apart two worlds are at least, judged by scores drawn in each."""

from functools import lru_cache

import numpy as np
from scipy.special import betainccinv, ndtri

from fed_gswgan.validation import at_least, between


def mu_lower_bound(present: np.ndarray, changed: np.ndarray, false_alarm: float) -> float:
    """Return a mu that the mechanism behind the scores reaches, but for ``false_alarm``.

    Args:
        present: independent scores in the one world, shape (N,); infinite ones are allowed.
        changed: the same in the other world, where scores are rather smaller.
        false_alarm: probability, in (0, 1), with which the bound may lie above the true mu.

    A guess "present" where a score lies above a threshold is wrong at two rates. The first half of
    the scores chooses the threshold; the second half, which had no say in it, gives an upper bound
    on each rate (Clopper and Pearson), each wrong with half of ``false_alarm``. A mechanism that is
    mu-Gaussian differentially private forces mu >= Phi^-1(1 - rate) - Phi^-1(other rate).

    Source: Gaussian differential privacy, arXiv 1905.02383, definition 2.6.
    """
    at_least(2, scores=min(len(present), len(changed)))
    between(0, 1, false_alarm=false_alarm)
    half = min(len(present), len(changed)) // 2
    seen = np.concatenate([present[:half], changed[:half]])
    thresholds = np.unique(seen[np.isfinite(seen)])
    if not len(thresholds):
        return 0.0
    chosen = np.argmax(_bounds(present[:half], changed[:half], thresholds, false_alarm))
    bound = _bounds(present[half:], changed[half:], thresholds[[chosen]], false_alarm)
    return max(0.0, float(bound[0]))


def _bounds(
    present: np.ndarray, changed: np.ndarray, thresholds: np.ndarray, false_alarm: float
) -> np.ndarray:
    false_negatives = np.searchsorted(np.sort(present), thresholds, side="right")
    false_positives = len(changed) - np.searchsorted(np.sort(changed), thresholds, side="right")
    missed = _largest_rates(len(present), false_alarm / 2)[false_negatives]
    accused = _largest_rates(len(changed), false_alarm / 2)[false_positives]
    return np.asarray(-ndtri(accused) - ndtri(missed))


@lru_cache
def _largest_rates(count: int, false_alarm: float) -> np.ndarray:
    """Return upper bounds of a rate after 0, 1, ... ``count`` errors in ``count`` tries."""
    errors = np.arange(count)
    return np.append(betainccinv(errors + 1, count - errors, false_alarm), 1.0)
