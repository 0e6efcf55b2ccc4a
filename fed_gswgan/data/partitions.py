"""How writers are dealt to clients, and how a client's shard is read."""

from collections.abc import Sequence

from fed_gswgan.config import DataConfig
from fed_gswgan.data.writer_shard import WriterShard
from fed_gswgan.data.writer_source import WriterSource
from fed_gswgan.validation import at_least

Partition = tuple[str, ...]  # the writers of one client


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


def partitions_of(source: WriterSource, config: DataConfig) -> tuple[Partition, ...]:
    """Deal a source's writers as the settings say: the same on server, clients and runtimes.

    Raises:
        ValueError: as ``partition_writers``.
    """
    return partition_writers(source.writer_ids, config.writers_per_client, config.max_clients)


def load_partition(source: WriterSource, partition: Partition) -> WriterShard:
    """Read the shards of one client's writers as one.

    Raises:
        ValueError: the partition is empty, or a writer has no shard in the source.
    """
    return WriterShard.merge([source.shard(writer_id) for writer_id in partition])
