"""Figures of a privacy statement: what finite arithmetic adds, and what a population can reach.

Gaussian noise that is drawn and added in floating point is not private: which numbers the sum can
be depends on the value that was added to. ``SecureNoise`` releases instead the exact sum of value
and ideal noise, rounded to a public grid after the noise, so rounding, the clamp, the cast to
float32 and the wire's number format cost nothing. What is left are the draws that are undecided at
the sampler's last bit.

Assumed:
    * The operating system's generator cannot be told from true random bits.
    * SciPy's ``ndtri`` is off by less than 2^-37 where it is used (measured: 2^-48), and mpmath's
      ``erfc`` by less than the last bit that is compared, 32 bits short of its precision.
    * Time is not observed: further bits of a draw take longer than none.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import log_ndtr

from fed_gswgan.accounting.trust import Exposure, SamplingMethod, TrustModel, privacy_spent
from fed_gswgan.privacy.mechanism import (
    Event,
    NeighboringRelation,
    grid_step,
    noise_deviation,
)
from fed_gswgan.privacy.noise import MAX_DEPTH
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


def no_guarantee(log10_added: float | None, delta: float) -> bool:
    """Tell whether more than delta is added to it, so that epsilon at delta says nothing."""
    return log10_added is not None and log10_added > math.log10(delta)


def said_of_finite_arithmetic(log10_added: float | None, delta: float) -> str:
    """Say what finite arithmetic adds to delta; None: nothing was released."""
    if no_guarantee(log10_added, delta):
        return (
            f"finite arithmetic adds more than delta={delta:g} to delta: an epsilon this large is "
            "no guarantee"
        )
    added = "nothing" if log10_added is None else f"10^{math.ceil(log10_added)}"
    return f"finite arithmetic adds {added} to delta"


def sum_of_shares_log10_delta(event: Event, coordinates: int, epsilon: float) -> float:
    """Return the logarithm to base 10 of what rounding each share adds to delta at ``epsilon``.

    Under secure aggregation each client rounds its own value and share of noise to the grid, and
    the sum of H rounded shares is only nearly the rounding of one Gaussian: by the lemma of
    ``docs/secure-aggregation.md`` within total variation ``log10_total_variation`` of it, for each
    of the coordinates that a user's sums hold.

    Args:
        event: under secure aggregation.
        coordinates: all that a user ever took part in: participations x numbers of a release.
        epsilon: at least 0.

    Returns:
        ``-math.inf`` for a single share, or when nothing was released.
    """
    at_least(0, coordinates=coordinates)
    non_negative(epsilon=epsilon)
    if coordinates == 0:
        return -math.inf
    of_one = log10_total_variation(noise_deviation(event) / grid_step(event), event.honest)
    return of_one + math.log10(coordinates) + float(np.logaddexp(0.0, epsilon)) / math.log(10)


FARTHEST = 200  # standard deviations


def log10_total_variation(share_steps: float, honest: int) -> float:
    """Return how far a sum of rounded shares is from a rounded Gaussian, at most, as a logarithm.

    One coordinate: the sum of H values round(x_k + s Z_k) beside the rounding of N(sum of x_k,
    H s^2) plus H - 1 independent uniforms on [-1/2, 1/2]. At most (R + 1/2) p + P(|N(0, H s^2)| > R
    - H/2) for every R, with p = 2.1 H exp(-2 pi^2 s^2 (H - 1) / H) / (s sqrt(2 pi H)).

    Args:
        share_steps: s, a share's standard deviation in steps of the grid, at least 1.
        honest: H, in 1 .. 10^6.

    Returns:
        The logarithm to base 10; ``-math.inf`` for a single share, which is exact.
    """
    at_least(1, honest=honest)
    if not (share_steps >= 1 and honest <= 10**6):
        raise ValueError(
            f"share-steps={share_steps:g} must be >= 1 and honest={honest} <= 1,000,000: the bound "
            "holds there"
        )
    if honest == 1:
        return -math.inf
    spread = share_steps * math.sqrt(honest)
    log_p = math.log(2.1 * honest) - 2 * (math.pi * share_steps) ** 2 * (honest - 1) / honest
    log_p -= math.log(spread * math.sqrt(2 * math.pi))
    deviations = np.arange(0.5, FARTHEST, 0.5)
    inside = np.log(honest / 2 + deviations * spread + 0.5) + log_p
    return float(np.logaddexp(inside, math.log(2) + log_ndtr(-deviations)).min()) / math.log(10)


DELTA_EXPONENT = -1.1  # of the population, so that delta stays below one over it
HONEST_SHARE = 0.9  # of a cohort, that stays and adds its noise
CENTRAL_SAMPLING = {
    NeighboringRelation.REPLACE_ONE: SamplingMethod.FIXED_SIZE,
    NeighboringRelation.ZERO_OUT: SamplingMethod.POISSON,
}


@dataclass(frozen=True, kw_only=True)
class Reachable:
    """Epsilons of one population; the mean of a round's gradients is equally noisy in all of them.

    Attributes:
        population: users.
        cohort: users in a round.
        delta: population^-1.1.
        participations: of a user, at most: rounds x cohort / population, rounded up.
        local_sample: the server sees every reply, whose rows are clipped.
        local_message: likewise, replies being clipped as a whole.
        secure_aggregation: nine in ten of every cohort are honest and stay.
        central: for those who see the generator alone, critics starting from a snapshot.
    """

    population: int
    cohort: int
    delta: float
    participations: int
    local_sample: float
    local_message: float
    secure_aggregation: float
    central: float


def reachable(
    population: int,
    cohort: int,
    rounds: int,
    event: Event,
    relation: NeighboringRelation,
) -> Reachable:
    """Return the epsilons of a population.

    Args:
        population: users, at least 2.
        cohort: users in a round; a smaller population takes part as a whole.
        rounds: of the run.
        event: a client's reply, rows being clipped one by one.
        relation: what neighbouring means.

    Raises:
        ValueError: a value out of its range, or an epsilon that cannot be computed.
    """
    at_least(2, population=population)
    at_least(1, cohort=cohort)
    at_least(1, rounds=rounds)
    cohort = min(cohort, population)
    delta = population**DELTA_EXPONENT
    participations = -(-rounds * cohort // population)
    local = Exposure(trust=TrustModel.LOCAL, relation=relation, participations=participations)
    honest = math.ceil(HONEST_SHARE * cohort)
    secure = replace(local, trust=TrustModel.SECURE_AGGREGATION, honest=honest)
    central = Exposure(
        trust=TrustModel.CENTRAL,
        relation=relation,
        rounds=rounds,
        sampling=CENTRAL_SAMPLING[relation],
        sampling_probability=cohort / population,
    )
    summed = replace(event, noise_stddev=event.noise_stddev * math.sqrt(cohort))
    return Reachable(
        population=population,
        cohort=cohort,
        delta=delta,
        participations=participations,
        local_sample=privacy_spent(event, local, delta).epsilon,
        local_message=privacy_spent(replace(event, bounded="message"), local, delta).epsilon,
        secure_aggregation=privacy_spent(event, secure, delta).epsilon,
        central=privacy_spent(summed, central, delta).epsilon,
    )
