"""Shards of simulated clients: which shard a client belongs to, and what their ledgers say.

A Flower node of a simulation hosts a shard of clients. The number of shards is fixed when a run is
first started; a client belongs to the shard that the SHA-256 of its id gives, whatever the number
of workers. The environment variable ``FED_GSWGAN_SIMULATION`` names the folder of all shards. The
account that starts a process sets it; no message and no setting of a run can, so a server cannot
turn a real device into a simulated one.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import overload

from fed_gswgan.data.partition import Partition, Partitions
from fed_gswgan.device.guard import FAILURES, NOISE_ALONE
from fed_gswgan.device.sums import Sums
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import Ledger, owners_hash
from fed_gswgan.privacy.mechanism import NeighboringRelation, compose
from fed_gswgan.privacy.policy import Budget
from fed_gswgan.secure_aggregation.keys import KEY_BYTES, Identity
from fed_gswgan.seeding import SeedStream

SIMULATION_FOLDER = "FED_GSWGAN_SIMULATION"


class ClientIds(Sequence[str]):
    """The ids of simulated clients, sorted, made one by one: ``client-00000`` and on."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(self._count))]
        return f"client-{range(self._count)[position]:05d}"

    def position(self, client_id: str) -> int:
        """Return which client this is, from 0; ValueError if there is none of this id."""
        number = client_id.removeprefix("client-")
        if not number.isdecimal() or client_id != f"client-{int(number):05d}":
            raise ValueError(f"client-id={client_id!r}: no such client")
        return range(self._count).index(int(number))


def shard_of(client_id: str, shards: int) -> int:
    """Return the shard of a client, from 0."""
    digest = hashlib.sha256(client_id.encode()).digest()
    return int.from_bytes(digest[:8]) % shards


def shard_name(shard: int) -> str:
    """Return the name by which a shard's node registers."""
    return f"shard-{shard:04d}"


@dataclass(frozen=True, kw_only=True)
class SpentBudgets:
    """What users spent, read from the clients' own ledgers.

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
class SimulatedClients:
    """All clients of a run that simulates them.

    Attributes:
        folder: of the shards' folders.
        partitions: whose images each client holds, and who its users are.
        shards: how many there are.
        seed: of the run, which the clients' keys follow from.
    """

    folder: Path
    partitions: Partitions
    shards: int
    seed: int = 0

    @property
    def client_ids(self) -> ClientIds:
        """All clients."""
        return ClientIds(len(self.partitions))

    def users(self, client_id: str) -> Partition:
        """Return who is charged for what a client releases."""
        return self.partitions.users(self.client_ids.position(client_id))

    def identity(self, client_id: str) -> Identity:
        """Return a client's key, by which its peers know it under secure aggregation."""
        return _identity(self.seed, client_id)

    def shard_folder(self, shard: int) -> Path:
        """Return the folder of a shard's ledger."""
        return self.folder / shard_name(shard)

    @property
    def owners(self) -> list[str]:
        """The hash of each shard's clients and their users."""
        return list(_owners(self.partitions, self.shards))

    def create(self, masked: bool = False) -> None:
        """Make each shard's folder with an empty ledger, unless it has one.

        A ledger that is there stays: another run in the same folder charges the same users. What an
        interrupted start left is completed. Where releases are ``masked`` a shard also gets the
        file that remembers rounds.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for shard in range(self.shards):
            Ledger.complete(self.shard_folder(shard), self.owners[shard])
            if masked:
                Sums.create(self.shard_folder(shard))

    def spent(self, budget: Budget) -> SpentBudgets:
        """Read every shard's ledger; a user who was never asked has spent nothing.

        Raises:
            LedgerUnavailable: one is missing or cannot be read, or is of other users.
        """
        relation = NeighboringRelation(budget.neighboring_relation)
        counts, mus = [0], []
        for shard in range(self.shards):
            with Ledger(self.shard_folder(shard), self.owners[shard], durable=False) as ledger:
                for releases in ledger.releases().values():
                    counts.append(releases.total())
                    mus.append(compose(releases, relation))
        users = self.partitions.user_count
        mu_max, mu_median = max(mus, default=0.0), _upper_median(mus, users)
        return SpentBudgets(
            users=users,
            participations_max=max(counts),
            mu_max=mu_max,
            epsilon_max=gaussian_epsilon(mu_max, budget.delta),
            epsilon_median=gaussian_epsilon(mu_median, budget.delta),
        )

    def failure_logs(self) -> list[Path]:
        """Return the logs of failures, which the clients' replies do not tell of."""
        return sorted([*self.folder.glob(FAILURES), *self.folder.glob(f"*/{FAILURES}")])


class FailureLogs:
    """The shards' logs of failures, read as they grow: who answered with noise alone, by round.

    Only a simulation can know: a device hides it, since whether computing fails can depend on data.

    Args:
        clients: of the simulation.
    """

    def __init__(self, clients: SimulatedClients) -> None:
        self._clients = clients
        self._read: dict[Path, int] = {}  # bytes
        self._found: dict[tuple[str, int], set[str]] = {}

    def noise_alone(self, experiment_id: str, server_round: int) -> int:
        """Return how many clients answered in this round, once finished, with noise alone."""
        for path in self._clients.failure_logs():
            with path.open("rb") as log:
                read = self._read.get(path, 0)
                log.seek(read if read <= path.stat().st_size else 0)  # a full log begins anew
                lines = log.read()
                self._read[path] = log.tell()
            for line in lines.decode(errors="replace").splitlines():
                if line.startswith(NOISE_ALONE):
                    experiment, number, client = line.removeprefix(NOISE_ALONE).split()
                    self._found.setdefault((experiment, int(number)), set()).add(client)
        return len(self._found.pop((experiment_id, server_round), ()))


def simulation_folder() -> Path | None:
    """Return the folder of the simulated clients; None in a process that does not simulate."""
    value = os.environ.get(SIMULATION_FOLDER)
    return Path(value) if value else None


@lru_cache(maxsize=4)
def _owners(partitions: Partitions, shards: int) -> tuple[str, ...]:
    members: list[dict[str, Partition]] = [{} for _ in range(shards)]
    for position, client_id in enumerate(ClientIds(len(partitions))):
        members[shard_of(client_id, shards)][client_id] = partitions.users(position)
    return tuple(owners_hash(clients) for clients in members)


@lru_cache(maxsize=2**17)
def _identity(seed: int, client_id: str) -> Identity:
    return Identity(SeedStream(seed).generator("identity", client_id=client_id).bytes(KEY_BYTES))


def _upper_median(mus: list[float], users: int) -> float:
    """Return the median over so many users, of whom those without an entry spent 0."""
    place = users // 2 - (users - len(mus))
    return sorted(mus)[place] if place >= 0 else 0.0
