"""Simulated clients: where their ledgers and critics lie, and what all of them reserved.

The environment variable ``FED_GSWGAN_SIMULATION`` names the folder. Whoever starts the process sets
it; no message and no run config can, so a server cannot talk a real device into being simulated.
"""

import contextlib
import os
import shutil
import statistics
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

from fed_gswgan.config import BudgetConfig
from fed_gswgan.privacy.accountant import compose
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import Ledger
from fed_gswgan.privacy.ledger_file import sync_folder
from fed_gswgan.privacy.neighboring import NeighboringRelation

SIMULATION_FOLDER = "FED_GSWGAN_SIMULATION"
LEDGER = "ledger.jsonl"
FAILURES = "failures.log"


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
    folder: Path, partitions: tuple[tuple[str, ...], ...], budget: BudgetConfig
) -> ReservedBudgets:
    """Read every virtual client's ledger.

    Raises:
        LedgerUnavailable: one is missing or cannot be read, or is of other users.
    """
    relation = NeighboringRelation(budget.neighboring_relation)
    counts, mus = [], []
    for partition_id, users in enumerate(partitions):
        path = folder / virtual_client_id(partition_id) / LEDGER
        for releases in Ledger(path, users, budget).releases().values():
            counts.append(releases.total())
            mus.append(compose(releases, relation))
    return ReservedBudgets(
        users=len(counts),
        participations_max=max(counts),
        mu_max=max(mus),
        epsilon_max=gaussian_epsilon(max(mus), budget.delta),
        epsilon_median=gaussian_epsilon(statistics.median_high(mus), budget.delta),
    )


def note_failure(folder: Path) -> None:
    """Append the exception at hand to the failure log in ``folder``; it stays on the device."""
    with contextlib.suppress(OSError), open(folder / FAILURES, "a", opener=_private) as log:
        traceback.print_exc(file=log)


def failed_clients(folder: Path) -> list[Path]:
    """Return the failure logs of virtual clients, which their replies do not tell of."""
    return sorted([*folder.glob(FAILURES), *folder.glob(f"*/{FAILURES}")])


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
