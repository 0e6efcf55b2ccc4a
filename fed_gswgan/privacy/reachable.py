"""Which epsilon a population of some size can have, under each trust model."""

import math
from dataclasses import dataclass, replace

from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.exposure import Exposure
from fed_gswgan.privacy.neighboring import NeighboringRelation
from fed_gswgan.privacy.privacy_spent import privacy_spent
from fed_gswgan.privacy.trust import SamplingMethod, TrustModel
from fed_gswgan.validation import at_least

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
    event: SanitizedGradientEvent,
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
        local_message=privacy_spent(replace(event, clipping="message"), local, delta).epsilon,
        secure_aggregation=privacy_spent(event, secure, delta).epsilon,
        central=privacy_spent(summed, central, delta).epsilon,
    )
