"""Simulated clients: where their ledgers and critics lie, and what all of them reserved.

The environment variable ``FED_GSWGAN_SIMULATION`` names the folder. Whoever starts the process sets
it; no message and no run config can, so a server cannot talk a real device into being simulated.
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from fed_gswgan.config import Config
from fed_gswgan.data.partition import Partitions
from fed_gswgan.device.client_folder import FAILURES, LEDGER
from fed_gswgan.device.population import Population
from fed_gswgan.privacy.events import NeighboringRelation, compose
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import Ledger
from fed_gswgan.privacy.policy import DevicePolicy

SIMULATION_FOLDER = "FED_GSWGAN_SIMULATION"


@dataclass(frozen=True, kw_only=True)
class ReservedBudgets:
    """What the users of all virtual clients reserved, read from their own ledgers.

    Attributes:
        users: how many there are, those who never answered included.
        participations_max: releases of the user with most.
        mu_max: of the user with most.
        epsilon_max: of the user with most.
        epsilon_median: over all users.
    """

    users: int
    participations_max: int
    mu_max: float
    epsilon_max: float
    epsilon_median: float


@dataclass(frozen=True)
class VirtualClients:
    """All clients of a run, where it simulates them and so can read what is theirs.

    Attributes:
        folder: of their ledgers and critics.
    """

    folder: Path

    def create(self, partitions: Partitions) -> None:
        """Make the folder, with nobody's ledger yet, unless it is there; see ``Population``."""
        Population.create(self.folder, partitions)

    def reserved(self, partitions: Partitions, policy: DevicePolicy) -> ReservedBudgets:
        """Read the ledger of each client that has one; whoever was never asked spent nothing.

        Raises:
            LedgerUnavailable: one that was made is missing or cannot be read, or is of other users.
        """
        relation = NeighboringRelation(policy.neighboring_relation)
        population = Population(self.folder, partitions)
        counts, mus = [0], []
        for partition_id in population.made():
            ledger = Ledger(
                population.folder_of(partition_id) / LEDGER, partitions.users(partition_id), policy
            )
            for releases in ledger.releases().values():
                counts.append(releases.total())
                mus.append(compose(releases, relation))
        users = partitions.user_count
        mu_max, mu_median = max(mus, default=0.0), _upper_median(mus, users)
        return ReservedBudgets(
            users=users,
            participations_max=max(counts),
            mu_max=mu_max,
            epsilon_max=gaussian_epsilon(mu_max, policy.delta),
            epsilon_median=gaussian_epsilon(mu_median, policy.delta),
        )

    def failure_logs(self) -> list[Path]:
        """Return the logs of failures, which the clients' replies do not tell of."""
        return sorted([*self.folder.glob(FAILURES), *self.folder.glob(f"*/{FAILURES}")])


@dataclass(frozen=True)
class RemoteClients:
    """All clients of a run, where they are devices: what is theirs is not to be seen."""

    def create(self, partitions: Partitions) -> None:
        """Make nothing: a device's owner made its ledger."""

    def reserved(self, partitions: Partitions, policy: DevicePolicy) -> ReservedBudgets | None:
        """Return None: ledgers are on the devices."""
        return None

    def failure_logs(self) -> list[Path]:
        """Return none: logs are on the devices."""
        return []


Clients = VirtualClients | RemoteClients


def clients_of_process() -> Clients:
    """Return the clients of a server that knows no more of them than its environment says."""
    folder = simulation_folder()
    return RemoteClients() if folder is None else VirtualClients(folder)


def simulation_folder() -> Path | None:
    """Return the folder of the virtual clients; None in a process that does not simulate."""
    value = os.environ.get(SIMULATION_FOLDER)
    return Path(value) if value else None


def policy_of_run(config: Config) -> DevicePolicy:
    """Return the policy of a simulated device: exactly what the run's settings ask for."""
    return DevicePolicy(
        **asdict(config.budget),
        max_samples=config.cohort.batch_size,
        max_critic_batches=config.cohort.critic_batches,
        clipping=config.sanitizer.clipping,
        max_clipping_bound=config.sanitizer.clipping_bound,
        min_noise_stddev=config.sanitizer.noise_stddev,
        trusted_server=config.algorithm.algorithm == "fedavg-gan",
    )


def _upper_median(mus: list[float], users: int) -> float:
    """Return the median over so many users, of whom those without an entry spent 0."""
    place = users // 2 - (users - len(mus))
    return sorted(mus)[place] if place >= 0 else 0.0
