"""Shard of simulated clients in this process: one guard, opened for a message and closed after it.

Any process may answer for any shard: what a client released and remembers lies in the shard's
folder.
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context

from fed_gswgan.algorithms.base import ClientView
from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import ClientDataset, spec_of
from fed_gswgan.data.partition import Partition, load_partition, partitions_of
from fed_gswgan.data.registry import open_source
from fed_gswgan.device.guard import Guard, note_failure
from fed_gswgan.device.shards import (
    SIMULATION_FOLDER,
    SimulatedClients,
    shard_name,
    shard_of,
    simulation_folder,
)
from fed_gswgan.device.sums import Sums
from fed_gswgan.privacy.noise import NoiseSource, named_noise_source
from fed_gswgan.secure_aggregation.protocol import Device
from fed_gswgan.secure_aggregation.terms import Roster
from fed_gswgan.seeding import SeedStream

KEPT_DATASETS = 256  # read once a process, as long as so many are enough


class ShardHost:
    """All shards of a run, as one process answers for them."""

    def __init__(self, root: Path, config: Config, shards: int) -> None:
        self._source = open_source(config.shared)
        self._spec = spec_of(self._source)
        self.config = config = config.with_noise(self._spec)
        partitions = partitions_of(self._source, config.shared)
        self._clients = SimulatedClients(root, partitions, shards, config.shared.seed)
        self._seeds = SeedStream(config.shared.seed)
        self._client = config.algorithm.Client(config.own, self._spec)
        self._guards: dict[int, Guard] = {}
        self._read = lru_cache(maxsize=KEPT_DATASETS)(self._read_partition)

    def answer(self, shard: int, blobs: Sequence[bytes], client_ids: Sequence[str]) -> list[bytes]:
        """Answer a request for clients of one shard, or the one of each."""
        for client_id in client_ids:
            if shard_of(client_id, self._clients.shards) != shard:
                raise ValueError(f"{client_id} does not belong to {shard_name(shard)}")
        if shard not in self._guards:
            config = self.config.shared
            self._guards[shard] = Guard(
                folder=self._clients.shard_folder(shard),
                owners=self._clients.owners[shard],
                algorithm=config.algorithm,
                client=self._client,
                policy=self.config.policy(self._spec),
                noise=self._noise,
                simulated=not config.masked,
                seeded=config.noise_source == "seeded",
            )
        guard, views = self._guards[shard], [self._view(client_id) for client_id in client_ids]
        if not self.config.shared.masked:
            (blob,) = blobs
            return guard.answer(blob, views)
        each = blobs if len(blobs) == len(views) else [*blobs] * len(views)
        return [
            Sums(guard, self._device(view.client_id)).answer(blob, view)
            for view, blob in zip(views, each, strict=True)
        ]

    def _device(self, client_id: str) -> Device:
        return Device(self._clients.identity(client_id), self._roster)

    @cached_property
    def _roster(self) -> Roster:
        """Every client of the run, each another person."""
        shared, clients = self.config.shared, self._clients
        return Roster(
            people={clients.identity(client).public: client for client in clients.client_ids},
            min_honest=shared.honest,
            max_colluding=shared.colluding,
        )

    def _view(self, client_id: str) -> ClientView:
        position = self._clients.client_ids.position(client_id)
        writers = self._clients.partitions.writers(position)
        users = self._clients.partitions.users(position)
        return ClientView(client_id, users, lambda: self._read(writers), self._seeds)

    def _read_partition(self, writers: Partition) -> ClientDataset:
        return load_partition(self._source, writers)

    def _noise(self, client_id: str, server_round: int) -> NoiseSource:
        randomness = self._seeds.generator("noise", server_round, client_id)
        return named_noise_source(self.config.shared.noise_source, randomness)


def name_of(context: Context) -> str:
    """Return the name of the shard that this node hosts."""
    shard, _ = _place(context)
    return shard_name(shard)


def answer(blobs: Sequence[bytes], client_ids: Sequence[str], context: Context) -> list[bytes]:
    """Answer a request for clients of this node's shard, or the one of each.

    Raises:
        RuntimeError: this process does not simulate.
    """
    torch.set_num_threads(1)  # one thread a process: more of them spin against each other
    root = simulation_folder()
    if root is None:
        raise RuntimeError(
            f"{SIMULATION_FOLDER} is not set: this app serves simulated clients; set it to a "
            "folder for their ledgers before starting the process"
        )
    shard, shards = _place(context)
    try:
        host = _host(root, tuple(sorted(context.run_config.items())), shards)
        return host.answer(shard, blobs, client_ids)
    except Exception:
        note_failure(root)
        raise


def _place(context: Context) -> tuple[int, int]:
    """Return this node's shard and how many there are."""
    found = [context.node_config.get(key) for key in ("partition-id", "num-partitions")]
    if not all(isinstance(number, int) for number in found):
        raise ValueError(f"partition-id, num-partitions={found} must be whole numbers")
    return int(found[0] or 0), int(found[1] or 0)


@lru_cache(maxsize=4)
def _host(root: Path, settings: tuple[Any, ...], shards: int) -> ShardHost:
    return ShardHost(root, Config.from_table(dict(settings)), shards)
