"""Simulated clients: where their ledgers and critics lie, and what all of them reserved.

The environment variable ``FED_GSWGAN_SIMULATION`` names the folder. Whoever starts the process sets
it; no message and no run config can, so a server cannot talk a real device into being simulated.
"""

import os
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path

from fed_gswgan.config import BudgetConfig
from fed_gswgan.privacy.accountant import compose, gaussian_epsilon
from fed_gswgan.privacy.ledger import Ledger
from fed_gswgan.privacy.neighboring import NeighboringRelation

SIMULATION_FOLDER = "FED_GSWGAN_SIMULATION"


@dataclass(frozen=True, kw_only=True)
class ReservedBudgets:
    """What the users of all virtual clients reserved, read from their own ledgers.

    Attributes:
        users: how many there are, those who never answered included.
        participations_max: releases of the user with most.
        epsilon_max: of the user with most.
        epsilon_median: over all users.
    """

    users: int
    participations_max: int
    epsilon_max: float
    epsilon_median: float


def simulation_folder() -> Path | None:
    """Return the folder of the virtual clients; None in a process that does not simulate."""
    value = os.environ.get(SIMULATION_FOLDER)
    return Path(value) if value else None


def virtual_client_id(partition_id: int) -> str:
    """Return the id of the virtual client that holds this partition."""
    return f"client-{partition_id:05d}"


def create_virtual_client(folder: Path, users: tuple[str, ...]) -> None:
    """Create a client's folder with an empty ledger; where there is a folder, nothing is made.

    A folder whose ledger is gone therefore stays without one, and its client refuses to answer.
    """
    if folder.exists():
        return
    draft = folder.with_name(f".{folder.name}-{os.getpid()}")
    draft.mkdir(parents=True)
    Ledger.create(draft / "ledger.jsonl", users)
    try:
        draft.rename(folder)
    except OSError:  # another process was first, and its folder is the client's
        shutil.rmtree(draft)


def reserved_budgets(
    folder: Path, partitions: tuple[tuple[str, ...], ...], budget: BudgetConfig
) -> ReservedBudgets:
    """Read every virtual client's ledger; one that was never asked has none and spent nothing.

    Raises:
        LedgerUnavailable: a client's folder is there and its ledger cannot be read.
    """
    relation = NeighboringRelation(budget.neighboring_relation)
    counts, mus = [], []
    for partition_id, users in enumerate(partitions):
        client = folder / virtual_client_id(partition_id)
        if not client.exists():
            counts += [0] * len(users)
            mus += [0.0] * len(users)
            continue
        for releases in Ledger(client / "ledger.jsonl", budget).releases().values():
            counts.append(releases.total())
            mus.append(compose(releases, relation))
    return ReservedBudgets(
        users=len(counts),
        participations_max=max(counts),
        epsilon_max=gaussian_epsilon(max(mus), budget.delta),
        epsilon_median=gaussian_epsilon(statistics.median_low(mus), budget.delta),
    )
