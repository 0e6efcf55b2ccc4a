"""Simulated clients: where their ledgers and critics lie, and what all of them reserved.

The environment variable ``FED_GSWGAN_SIMULATION`` names the folder. Whoever starts the process sets
it; no message and no run config can, so a server cannot talk a real device into being simulated.
"""

import os
import shutil
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from fed_gswgan.config import Config
from fed_gswgan.device.client_folder import FAILURES, LEDGER
from fed_gswgan.privacy.accountant import compose
from fed_gswgan.privacy.durable_file import sync_folder
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import Ledger
from fed_gswgan.privacy.neighboring import NeighboringRelation
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


def simulation_folder() -> Path | None:
    """Return the folder of the virtual clients; None in a process that does not simulate."""
    value = os.environ.get(SIMULATION_FOLDER)
    return Path(value) if value else None


def virtual_client_id(partition_id: int) -> str:
    """Return the id of the virtual client that holds this partition."""
    return f"client-{partition_id:05d}"


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


def create_virtual_clients(folder: Path, partitions: tuple[tuple[str, ...], ...]) -> None:
    """Create every client's folder with an empty ledger, all at once; a folder that is there stays.

    What is missing in a folder that is there is not made again: its client refuses to answer.

    Args:
        folder: of all virtual clients; readable by its owner alone.
        partitions: the users of each client.
    """
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        for partition_id, users in enumerate(partitions):
            client = draft / virtual_client_id(partition_id)
            client.mkdir(mode=0o700)
            Ledger.create(client / LEDGER, users)
        sync_folder(draft)
        draft.rename(folder)  # refused if another process was first and its folder has clients
    except OSError:
        shutil.rmtree(draft)
        if not folder.exists():
            raise
    sync_folder(folder.parent)


def reserved_budgets(
    folder: Path, partitions: tuple[tuple[str, ...], ...], policy: DevicePolicy
) -> ReservedBudgets:
    """Read every virtual client's ledger.

    Raises:
        LedgerUnavailable: one is missing or cannot be read, or is of other users.
    """
    relation = NeighboringRelation(policy.neighboring_relation)
    counts, mus = [], []
    for partition_id, users in enumerate(partitions):
        path = folder / virtual_client_id(partition_id) / LEDGER
        for releases in Ledger(path, users, policy).releases().values():
            counts.append(releases.total())
            mus.append(compose(releases, relation))
    return ReservedBudgets(
        users=len(counts),
        participations_max=max(counts),
        mu_max=max(mus),
        epsilon_max=gaussian_epsilon(max(mus), policy.delta),
        epsilon_median=gaussian_epsilon(statistics.median_high(mus), policy.delta),
    )


def failed_clients(folder: Path) -> list[Path]:
    """Return the failure logs of virtual clients, which their replies do not tell of."""
    return sorted([*folder.glob(FAILURES), *folder.glob(f"*/{FAILURES}")])
