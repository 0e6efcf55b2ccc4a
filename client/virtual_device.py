"""The device of a simulated client: its guard, opened from the node's partition-id."""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from flwr.app import Context

from fed_gswgan.config import Config, DataConfig
from fed_gswgan.data.partitions import load_partition, partitions_of
from fed_gswgan.data.writer_source import WriterSource, open_source
from fed_gswgan.device.guard import Guard
from fed_gswgan.device.update_guard import UpdateGuard
from fed_gswgan.device.virtual_clients import (
    SIMULATION_FOLDER,
    policy_of_run,
    simulation_folder,
    virtual_client_id,
)
from fed_gswgan.privacy.noise_source import NoiseSource, SecureNoise, SeededNoise
from fed_gswgan.seeding import SeedStream


class Device(NamedTuple):
    """What the relay talks to."""

    guard: Guard
    update_guard: UpdateGuard


def client_id_of(context: Context) -> str:
    """Return the stable id of this node's client; it does not depend on anybody's images.

    Raises:
        ValueError: the node has no partition-id, or there is no such client.
    """
    open_device(context)
    return virtual_client_id(_partition_id(context))


def open_device(context: Context) -> Device:
    """Return the guards of this node's virtual client.

    Raises:
        RuntimeError: this process does not simulate.
    """
    root = simulation_folder()
    if root is None:
        raise RuntimeError(
            f"{SIMULATION_FOLDER} is not set: this app serves simulated clients; set it to a "
            "folder for their ledgers and critics before starting the process"
        )
    return _open(root, _partition_id(context), tuple(sorted(context.run_config.items())))


# Ray shares an actor between clients: this is a cache of what can be read again, never state.
@lru_cache(maxsize=256)
def _open(root: Path, partition_id: int, settings: tuple[Any, ...]) -> Device:
    config = Config.from_run_config(dict(settings))
    source = _source(config.data)
    partitions = partitions_of(source, config.data)
    if not 0 <= partition_id < len(partitions):
        raise ValueError(
            f"partition-id={partition_id} must be >= 0 and < {len(partitions)}, the number of "
            f"clients that dataset={config.data.dataset} makes; start that many nodes"
        )
    users = partitions[partition_id]
    client_id = virtual_client_id(partition_id)
    num_classes = len(source.class_names)
    owned = (
        client_id,
        users,
        lambda: load_partition(source, users),
        num_classes,
        config,
        policy_of_run(config),
        root / client_id,
    )
    guard = Guard(*owned, lambda server_round: _noise_source(config, client_id, server_round))
    return Device(guard, UpdateGuard(*owned))


@lru_cache(maxsize=4)
def _source(config: DataConfig) -> WriterSource:
    return open_source(config)


def _noise_source(config: Config, client_id: str, server_round: int) -> NoiseSource:
    if config.sanitizer.noise_source == "secure":
        return SecureNoise()
    return SeededNoise(SeedStream(config.run.seed).generator("noise", server_round, client_id))


def _partition_id(context: Context) -> int:
    partition_id = context.node_config.get("partition-id")
    if not isinstance(partition_id, int):
        raise ValueError(f"partition-id={partition_id!r} in the node config must be a whole number")
    return partition_id
