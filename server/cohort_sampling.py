"""Who is asked in a round: drawn by client id from the run's seed, never by node id."""

from collections.abc import Sequence

from fed_gswgan.config import CohortConfig
from fed_gswgan.seeding import SeedStream


def select_cohort(
    client_ids: Sequence[str], server_round: int, config: CohortConfig, seeds: SeedStream
) -> list[str]:
    """Return the cohort of a round, sorted.

    Args:
        client_ids: the population, in any order; who may not be asked is left out of the cohort by
            the caller afterwards, so that a refusal never shifts anybody else's draw.
        server_round: from 1.
        config: ``fixed-size`` draws ``cohort_size`` clients without replacement; ``poisson`` draws
            each client by itself with probability cohort_size / population, so the size varies.
        seeds: of the run.
    """
    population = sorted(client_ids)
    randomness = seeds.generator("cohort", server_round)
    if config.sampling_method == "poisson":
        chosen = randomness.random(len(population)) < config.cohort_size / len(population)
        return [client_id for client_id, drawn in zip(population, chosen, strict=True) if drawn]
    size = min(config.cohort_size, len(population))
    # Positions, not ids: a 64-bit node id does not survive a passage through floats.
    positions = randomness.choice(len(population), size=size, replace=False)
    return [population[position] for position in sorted(positions)]
