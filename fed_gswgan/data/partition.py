"""Partitions: how writers are dealt to clients, and how a client's images are read."""

from collections.abc import Sequence
from dataclasses import dataclass

from fed_gswgan.data.client_dataset import ClientDataset, WriterSource
from fed_gswgan.data.registry import DataSettings
from fed_gswgan.validation import at_least

Partition = tuple[str, ...]  # the writers, or the users, of one client


@dataclass(frozen=True)
class Partitions:
    """The shard and the users of each client.

    Where the clients are virtual, the shards are dealt to them in turn, so several may hold the
    same images. Each of them still has users of its own, named ``WRITER/COPY``: a release of
    one client is charged to no other client's users.

    Attributes:
        shards: the writers of each shard.
        virtual_clients: how many there are; 0: as many as shards, and the users are the writers.
    """

    shards: tuple[Partition, ...]
    virtual_clients: int = 0

    def __len__(self) -> int:
        return self.virtual_clients or len(self.shards)

    def writers(self, partition_id: int) -> Partition:
        """Return the writers of the client's images; partition ids run from 0."""
        return self.shards[partition_id % len(self.shards)]

    def users(self, partition_id: int) -> Partition:
        """Return the users charged for the client's releases; no user belongs to two clients."""
        if not self.virtual_clients:
            return self.shards[partition_id]
        copy, shard = divmod(partition_id, len(self.shards))
        return tuple(f"{writer}/{copy}" for writer in self.shards[shard])

    @property
    def all_writers(self) -> Partition:
        """The writers of all shards."""
        return tuple(writer for shard in self.shards for writer in shard)

    @property
    def user_count(self) -> int:
        """Users of all clients together."""
        rounds, rest = divmod(len(self), len(self.shards))
        return rounds * sum(map(len, self.shards)) + sum(map(len, self.shards[:rest]))

    @property
    def shared(self) -> bool:
        """Tell whether some client holds the images of another."""
        return len(self) > len(self.shards)


def partition_writers(
    writer_ids: Sequence[str], writers_per_client: int, max_clients: int
) -> tuple[Partition, ...]:
    """Deal the writers like cards, to as few clients as hold ``writers_per_client`` at most.

    Every writer goes to exactly one client, and clients differ by one writer at most. The result
    depends on the arguments alone. ``max_clients`` keeps the first clients and leaves the others'
    writers unused; 0 keeps all.

    Raises:
        ValueError: no writers, fewer than one client needs, or a setting below its minimum.
    """
    at_least(1, writers_per_client=writers_per_client)
    at_least(0, max_clients=max_clients)
    if len(writer_ids) < writers_per_client:
        raise ValueError(
            f"writers-per-client={writers_per_client} must be at most the number of writers, "
            f"{len(writer_ids)}; lower it, or lower min-images-per-writer"
        )
    client_count = -(-len(writer_ids) // writers_per_client)
    partitions = tuple(tuple(writer_ids[first::client_count]) for first in range(client_count))
    return partitions[: max_clients or None]


def partitions_of(source: WriterSource, config: DataSettings) -> Partitions:
    """Deal a source's writers as the settings say: the same on server, clients and runtimes.

    Raises:
        ValueError: as ``partition_writers``.
    """
    shards = partition_writers(source.writer_ids, config.writers_per_client, config.max_clients)
    return Partitions(shards, config.virtual_clients)


def load_partition(source: WriterSource, writers: Partition) -> ClientDataset:
    """Read the shards of one client's writers as one.

    Raises:
        ValueError: no writer is named, or one has no shard in the source.
    """
    return ClientDataset.merge([source.shard(writer_id) for writer_id in writers])
