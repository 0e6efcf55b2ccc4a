import numpy as np
import pytest

from fed_gswgan.data.digits import DigitsSource
from fed_gswgan.data.partition import Partitions, load_partition, partition_writers

WRITERS = tuple("abcdefghij")


@pytest.mark.parametrize("writers_per_client", range(1, 11))
def test_every_writer_goes_to_one_client_and_sizes_differ_by_one_at_most(writers_per_client):
    partitions = partition_writers(WRITERS, writers_per_client, 0)
    assert sorted(writer for partition in partitions for writer in partition) == list(WRITERS)
    sizes = {len(partition) for partition in partitions}
    assert max(sizes) <= writers_per_client
    assert max(sizes) - min(sizes) <= 1
    assert len(partitions) == -(-10 // writers_per_client)


def test_writers_are_dealt_like_cards_and_max_clients_keeps_the_first():
    dealt = (("a", "d", "g", "j"), ("b", "e", "h"), ("c", "f", "i"))
    assert partition_writers(WRITERS, 4, 0) == partition_writers(WRITERS, 4, 99) == dealt
    assert partition_writers(WRITERS, 4, 2) == dealt[:2]


@pytest.mark.parametrize(
    ("writers", "per_client", "clients", "rule"),
    [
        (WRITERS, 11, 0, "writers-per-client=11 must be at most .* 10"),
        ((), 1, 0, "number of writers, 0"),
        (WRITERS, 0, 0, "writers-per-client=0 must be a whole number >= 1"),
        (WRITERS, 1, -1, "max-clients=-1 must be a whole number >= 0"),
    ],
)
def test_settings_without_a_client_are_refused(writers, per_client, clients, rule):
    with pytest.raises(ValueError, match=rule):
        partition_writers(writers, per_client, clients)


def test_a_clients_images_are_those_of_its_writers():
    source = DigitsSource("all", 1)
    shard = load_partition(source, ("block-03", "block-01"))
    parts = [source.shard("block-03"), source.shard("block-01")]
    assert shard.writer_ids == ("block-03", "block-01")
    assert np.array_equal(shard.images, np.concatenate([part.images for part in parts]))
    assert np.array_equal(shard.labels, np.concatenate([part.labels for part in parts]))
    with pytest.raises(ValueError, match="at least one shard"):
        load_partition(source, ())


SHARDS = (("a", "b"), ("c",), ("d",))


def test_by_default_the_users_of_a_client_are_the_writers_of_its_shard():
    partitions = Partitions(SHARDS)
    assert (len(partitions), partitions.user_count, partitions.shared) == (3, 4, False)
    assert [partitions.users(i) for i in range(3)] == list(SHARDS)
    assert [partitions.writers(i) for i in range(3)] == list(SHARDS)


def test_virtual_clients_share_the_shards_and_have_users_of_their_own():
    partitions = Partitions(SHARDS, virtual_clients=5)
    assert [partitions.writers(i) for i in range(5)] == [*SHARDS, *SHARDS[:2]]
    assert [partitions.users(i) for i in range(5)] == [
        ("a/0", "b/0"), ("c/0",), ("d/0",), ("a/1", "b/1"), ("c/1",),
    ]  # fmt: skip
    names = Partitions((("a",), ("a/0",), ("a/1",), ("a/1/0",)), virtual_clients=20)
    assert len({user for i in range(20) for user in names.users(i)}) == 20


@pytest.mark.parametrize("clients", [1, 2, 3, 4, 5, 100])
def test_users_are_counted_without_making_them(clients):
    partitions = Partitions(SHARDS, virtual_clients=clients)
    assert partitions.user_count == sum(len(partitions.users(i)) for i in range(clients))
    assert partitions.shared == (clients > 3)
