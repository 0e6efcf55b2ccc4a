"""Epsilon where it is known afterwards in which rounds a user was selected: a Gaussian mixture."""

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp
from scipy.stats import binom

from fed_gswgan.privacy.gaussian import gaussian_epsilon, gaussian_log_delta
from fed_gswgan.privacy.sampled_gaussian import proper_probability
from fed_gswgan.validation import at_least, between, positive

# Of delta: probability of the counts that are left out, and counted as certain loss.
RARE_SHARE = 1e-9
LARGEST_ROUNDS = 10**9


def revealed_epsilon(mu: float, sampling_probability: float, rounds: int, delta: float) -> float:
    """Return epsilon of a user selected at random in each round, its selections being revealed.

    The number of rounds is binomial and independent of the data; given it, the releases are one
    Gaussian. So delta is the mean of the exact Gaussian deltas. No amplification is claimed, hence
    critics may keep any state, under either relation.

    Args:
        mu: sensitivity over noise of one round's release.
        sampling_probability: of a user in a round, in (0, 1].
        rounds: at most 10^9.
        delta: in (0, 1).

    Raises:
        ValueError: a value out of its range.
    """
    positive(mu=mu)
    at_least(1, rounds=rounds)
    between(0, 1, delta=delta)
    proper_probability(sampling_probability)
    if rounds > LARGEST_ROUNDS:
        raise ValueError(f"rounds={rounds} must be at most {LARGEST_ROUNDS}")
    if sampling_probability == 1:
        return gaussian_epsilon(mu * math.sqrt(rounds), delta)
    least, most = _likely_counts(sampling_probability, rounds, RARE_SHARE * delta)
    counts = np.arange(max(least, 1), max(most, 1) + 1)
    log_weights = binom.logpmf(counts, rounds, sampling_probability)
    mus = mu * np.sqrt(counts)
    log_target = math.log(delta * (1 - 2 * RARE_SHARE))

    def excess(epsilon: float) -> float:
        return float(logsumexp(log_weights + gaussian_log_delta(mus, epsilon))) - log_target

    if excess(0.0) <= 0:
        return 0.0
    high = gaussian_epsilon(float(mus[-1]), delta / 2)
    return float(brentq(excess, 0.0, high, rtol=1e-12))


def _likely_counts(probability: float, rounds: int, rare: float) -> tuple[int, int]:
    """Return counts below and above which there is at most ``rare`` probability each.

    Source: Bernstein's inequality.
    """
    mean, rarity = rounds * probability, -math.log(rare)
    reach = rarity / 3 + math.sqrt(rarity**2 / 9 + 2 * mean * (1 - probability) * rarity)
    return max(0, math.floor(mean - reach)), min(rounds, math.ceil(mean + reach))
