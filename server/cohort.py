"""Cohort of a round: drawn by client id from the run's seed, less clients without a budget."""

import math
from collections import Counter
from collections.abc import Container, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from fed_gswgan.config import CohortSettings
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import Key, Ledger
from fed_gswgan.privacy.mechanism import Event, NeighboringRelation, compose
from fed_gswgan.privacy.policy import Budget
from fed_gswgan.privacy.refusals import Refusal
from fed_gswgan.seeding import SeedStream


def select_cohort(
    population: Sequence[str],
    server_round: int,
    config: CohortSettings,
    seeds: SeedStream,
    absent: Container[str] = frozenset(),
) -> list[str]:
    """Return the cohort of a round, sorted.

    Args:
        population: all client ids, sorted; a client that may not be asked is left out afterwards,
            so that a refusal never shifts another's draw.
        server_round: from 1.
        config: ``fixed-size`` draws ``cohort_size`` clients without replacement; ``poisson`` draws
            each client by itself with probability cohort_size / population, so the size varies.
        seeds: of the run.
        absent: clients that are not there. A fixed-size cohort is filled up with others, drawn
            likewise; a client that is there and was drawn is never replaced. A Poisson cohort is
            not filled up: each client's draw is its own.
    """
    randomness = seeds.generator("cohort", server_round)
    if config.sampling_method == "poisson":
        drawn = randomness.random(len(population)) < config.cohort_size / len(population)
        chosen = [population[int(position)] for position in np.flatnonzero(drawn)]
        return [client_id for client_id in chosen if client_id not in absent]
    size = min(config.cohort_size, len(population))
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


def last_round(folder: Path) -> int:
    """Return the last round that somebody was asked in, by the server's ledger; 0: none."""
    with Ledger(folder) as ledger:
        return max((line.server_round for line in ledger.lines()), default=0)


class ServerLedger:
    """The server's own count of releases: an upper bound on what clients reserved.

    A round that is asked again after a crash counts again, because a client may have had to charge
    it again; under seeded noise no client does. What other runs asked of the same users is not in
    it.

    Args:
        folder: of the ledger.
        budget: the limits.
        repeated_from: under seeded noise the first round to be asked, from which on releases are
            repeated and not counted again; None: every release counts.

    Raises:
        LedgerUnavailable: the ledger is missing or was changed.
    """

    def __init__(self, folder: Path, budget: Budget, repeated_from: int | None = None) -> None:
        self._folder, self._budget, self._repeated_from = folder, budget, repeated_from
        self._relation = NeighboringRelation(budget.neighboring_relation)
        with Ledger(folder) as ledger:
            self._spent: dict[str, Counter[Event]] = {}
            for line in ledger.lines():
                if repeated_from is None or line.server_round < repeated_from:
                    self._spent.setdefault(line.user, Counter())[line.event] += 1
        self._mus = {c: compose(spent, self._relation) for c, spent in self._spent.items()}
        self.max_mu = max(self._mus.values(), default=0.0)
        self.max_participations = max((s.total() for s in self._spent.values()), default=0)
        self._exhausted = 0  # so many clients of the population, from the first
        self._counted = 0  # size of the population when that was found

    @staticmethod
    def create(folder: Path) -> None:
        """Create an empty ledger, once a run."""
        Ledger.complete(folder, "")

    def record(self, cohort: Sequence[str], key: Key, event: Event) -> None:
        """Charge every client that is about to be asked, on disk, whether or not it will answer."""
        with Ledger(self._folder) as ledger:
            clients = {client: (client,) for client in cohort}
            repeats = self._repeated_from is not None
            ledger.reserve(clients, key, event, self._budget, recompute=repeats)
        mu = event.mu(self._relation)
        for client in cohort:
            spent = self._spent.setdefault(client, Counter())
            spent[event] += 1
            self._mus[client] = math.hypot(self._mus.get(client, 0.0), mu)
            self.max_mu = max(self.max_mu, self._mus[client])
            self.max_participations = max(self.max_participations, spent.total())

    def would_exceed(self, client_id: str, event: Event) -> bool:
        """Tell whether one more such release would pass a limit for this client's users."""
        try:
            self._budget.admit_spending(self._spent.get(client_id, Counter()), event)
        except Refusal:
            return True
        return False

    def all_exhausted(self, population: Sequence[str], event: Event) -> bool:
        """Tell whether no client may be asked any more; one found exhausted stays so."""
        size = len(population)
        if size != self._counted:  # a client that joined may stand before those counted
            self._exhausted, self._counted = 0, size
        while self._exhausted < size and self.would_exceed(population[self._exhausted], event):
            self._exhausted += 1
        return self._exhausted == size

    @property
    def releases(self) -> int:
        """Releases of all clients together."""
        return sum(spent.total() for spent in self._spent.values())

    @property
    def max_epsilon(self) -> float:
        """Epsilon of the client that was asked most; 0 before any was."""
        return gaussian_epsilon(self.max_mu, self._budget.delta)
