"""The device of a simulated client: its guard, in this process, by the node's partition-id."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from flwr.app import Context, RecordDict

from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import ClientDataset
from fed_gswgan.data.partition import Partition, load_partition, partitions_of
from fed_gswgan.data.registry import open_source
from fed_gswgan.device.client_folder import note_failure
from fed_gswgan.device.guard import Guard
from fed_gswgan.device.population import Population, virtual_client_id
from fed_gswgan.device.private_client import PrivateClient
from fed_gswgan.device.update_guard import UpdateGuard
from fed_gswgan.device.virtual_clients import SIMULATION_FOLDER, policy_of_run, simulation_folder
from fed_gswgan.privacy.noise_source import NoiseSource, named_noise_source
from fed_gswgan.privacy.refusals import Refusal
from fed_gswgan.profiling import timed
from fed_gswgan.seeding import SeedStream
from fed_gswgan.wire.record_codec import (
    decode_request,
    decode_update_request,
    encode_reply,
    encode_update_reply,
)

# Devices, and the shards that virtual clients share, kept in memory. Ray shares an actor between
# clients, and there may be any number of them: what is kept can be read again, and is never state.
KEPT = 256


class Device(NamedTuple):
    """What answers for a simulated client."""

    guard: Guard
    update_guard: UpdateGuard


class Simulation:
    """What all virtual clients of a run have in common, read once a process."""

    def __init__(self, root: Path, config: Config) -> None:
        self.config = config
        self.source = open_source(config.data)
        self.partitions = partitions_of(self.source, config.data)
        self.population = Population(root, self.partitions)
        self.shard = lru_cache(maxsize=KEPT)(self._shard)
        self.device = lru_cache(maxsize=KEPT)(self._device)

    def client_id(self, partition_id: int) -> str:
        """Return the id of a client; ValueError if there is none."""
        if not 0 <= partition_id < len(self.partitions):
            raise ValueError(
                f"partition-id={partition_id} must be >= 0 and < {len(self.partitions)}, the "
                f"number of clients that dataset={self.config.data.dataset} makes; start that "
                "many nodes"
            )
        return virtual_client_id(partition_id)

    def _shard(self, writers: Partition) -> ClientDataset:
        return load_partition(self.source, writers)

    def _device(self, partition_id: int) -> Device:
        config, client_id = self.config, self.client_id(partition_id)
        writers = self.partitions.writers(partition_id)
        client = PrivateClient(
            client_id,
            self.partitions.users(partition_id),
            lambda: self.shard(writers),
            len(self.source.class_names),
            config,
            policy_of_run(config),
            self.population.open(partition_id),
        )
        guard = Guard(client, lambda server_round: _noise_source(config, client_id, server_round))
        return Device(guard, UpdateGuard(client))


def client_id_of(context: Context) -> str:
    """Return the stable id of this node's client; it does not depend on anybody's images.

    Raises:
        ValueError: the node has no partition-id, or there is no such client.
        RuntimeError: this process does not simulate.
    """
    with _noted():
        return _simulation(context).client_id(_partition_id(context))


def answer_train(content: RecordDict, context: Context) -> RecordDict:
    """Answer a train request of GS-WGAN; Refusal by name, from the guard."""
    with _noted(), timed("answer"):
        guard = open_device(context).guard
        with timed("codec"):
            request = decode_request(content)
        reply = guard.answer(request)
        with timed("codec"):
            return encode_reply(reply, request.uplink_codec)


def answer_update(content: RecordDict, context: Context) -> RecordDict:
    """Answer one of FedAvg-GAN; Refusal by name, from the guard."""
    with _noted(), timed("answer"):
        guard = open_device(context).update_guard
        return encode_update_reply(guard.answer(decode_update_request(content)))


def open_device(context: Context) -> Device:
    """Return the guards of this node's virtual client.

    Raises:
        RuntimeError: this process does not simulate.
        Refusal: LedgerUnavailable or LedgerLocked, of the population.
    """
    return _simulation(context).device(_partition_id(context))


def _simulation(context: Context) -> Simulation:
    root = simulation_folder()
    if root is None:
        raise RuntimeError(
            f"{SIMULATION_FOLDER} is not set: this app serves simulated clients; set it to a "
            "folder for their ledgers and critics before starting the process"
        )
    return _opened(root, tuple(sorted(context.run_config.items())))


@contextmanager
def _noted() -> Iterator[None]:
    """Note a failure, but no refusal, where whoever simulates looks for it."""
    torch.set_num_threads(1)  # one thread a process: more of them spin against each other
    try:
        yield
    except Refusal:
        raise
    except Exception:
        if (folder := simulation_folder()) is not None:
            note_failure(folder)
        raise


@lru_cache(maxsize=4)
def _opened(root: Path, settings: tuple[Any, ...]) -> Simulation:
    return Simulation(root, Config.from_run_config(dict(settings)))


def _noise_source(config: Config, client_id: str, server_round: int) -> NoiseSource:
    randomness = SeedStream(config.run.seed).generator("noise", server_round, client_id)
    return named_noise_source(config.sanitizer.noise_source, randomness)


def _partition_id(context: Context) -> int:
    partition_id = context.node_config.get("partition-id")
    if not isinstance(partition_id, int):
        raise ValueError(f"partition-id={partition_id!r} in the node config must be a whole number")
    return partition_id
