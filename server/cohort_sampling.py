"""Who is asked in a round: drawn by client id from the run's seed, never by node id."""

from collections.abc import Container
from itertools import islice
from typing import Protocol

import numpy as np

from fed_gswgan.config import CohortConfig
from fed_gswgan.seeding import SeedStream


class ClientIds(Protocol):
    """The client ids of a population, sorted."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> str: ...


def select_cohort(
    population: ClientIds,
    server_round: int,
    config: CohortConfig,
    seeds: SeedStream,
    absent: Container[str] = frozenset(),
) -> list[str]:
    """Return the cohort of a round, sorted.

    Args:
        population: all client ids, sorted; who may not be asked is left out of the cohort by the
            caller afterwards, so that a refusal never shifts anybody else's draw.
        server_round: from 1.
        config: ``fixed-size`` draws ``cohort_size`` clients without replacement; ``poisson`` draws
            each client by itself with probability cohort_size / population, so the size varies.
        seeds: of the run.
        absent: those who are not there. A fixed-size cohort is filled up with others, drawn
            likewise; whoever is there and was drawn is never replaced. A Poisson cohort is not
            filled up: everybody's draw is their own.
    """
    randomness = seeds.generator("cohort", server_round)
    if config.sampling_method == "poisson":
        drawn = randomness.random(len(population)) < config.cohort_size / len(population)
        chosen = [population[int(position)] for position in np.flatnonzero(drawn)]
        return [client_id for client_id in chosen if client_id not in absent]
    size = min(config.cohort_size, len(population))
    # Positions, not ids: a 64-bit node id does not survive a passage through floats.
    positions = randomness.choice(len(population), size=size, replace=False)
    chosen = [population[int(position)] for position in sorted(positions)]
    present = [client_id for client_id in chosen if client_id not in absent]
    if missing := size - len(present):
        others = np.setdiff1d(np.arange(len(population)), positions)
        order = seeds.generator("cohort-refill", server_round).permutation(others)
        ids = (population[int(position)] for position in order)
        there = islice((client_id for client_id in ids if client_id not in absent), missing)
        present = sorted([*present, *there])
    return present
