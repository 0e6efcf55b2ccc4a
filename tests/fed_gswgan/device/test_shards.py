import shutil
from pathlib import Path

import numpy as np
import pytest

from fed_gswgan.data.partition import Partitions
from fed_gswgan.device.guard import FAILURES, NOISE_ALONE
from fed_gswgan.device.shards import (
    ClientIds,
    FailureLogs,
    SimulatedClients,
    shard_name,
    shard_of,
    simulation_folder,
)
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import HEAD, LEDGER, Ledger
from fed_gswgan.privacy.mechanism import Event
from fed_gswgan.privacy.policy import Budget
from fed_gswgan.privacy.refusals import LedgerUnavailable
from fed_gswgan.wire.messages import ReleaseKey

PARTITIONS = Partitions((("a", "b"), ("c", "d"), ("e", "f", "g")))
# mu = 2 / 8 = 0.25 under replace-one.
EVENT = Event(rows=1, numbers=4, clipping_bound=1.0, noise_stddev=8.0)
BUDGET = Budget(delta=1e-5)


@pytest.fixture
def clients(tmp_path):
    clients = SimulatedClients(tmp_path / "clients", PARTITIONS, shards=2)
    clients.create()
    return clients


def reserve(clients, position, rounds):
    client_id = clients.client_ids[position]
    shard = shard_of(client_id, clients.shards)
    for number in range(1, rounds + 1):
        with Ledger(clients.shard_folder(shard), clients.owners[shard]) as ledger:
            users = {client_id: clients.users(client_id)}
            ledger.reserve(users, ReleaseKey("e", number, "ab"), EVENT, BUDGET)


class TestClientIds:
    def test_ids_sort_as_their_positions_and_lead_back(self):
        ids = ClientIds(100_001)
        assert (ids[0], ids[2], ids[-1], len(ids)) == (
            "client-00000", "client-00002", "client-100000", 100_001,
        )  # fmt: skip
        assert ids[8:11] == ["client-00008", "client-00009", "client-00010"]
        assert sorted(ids[:1000]) == ids[:1000]
        assert [ids.position(ids[i]) for i in (0, 7, 99_999)] == [0, 7, 99_999]

    @pytest.mark.parametrize("name", ["", "client-", "client-3", "client-00003", "client-\u0661"])
    def test_an_id_of_no_client_is_refused(self, name):
        with pytest.raises(ValueError, match=r"no such client|not in range"):
            ClientIds(3).position(name)


class TestShardOf:
    def test_a_client_belongs_to_the_shard_of_its_hash(self):
        """The first 8 bytes of SHA-256 as a number, big-endian, modulo the number of shards."""
        by_sha256sum = [0x954EF1F96FBD1F6E, 0x9C5E1C8E1DF72297, 0xD2CD3F6C3D8305EB]
        for shards in (1, 2, 3, 7, 1000):
            found = [shard_of(client_id, shards) for client_id in ClientIds(3)]
            assert found == [number % shards for number in by_sha256sum]
        assert shard_name(3) == "shard-0003"

    def test_clients_spread_over_the_shards(self):
        counts = np.bincount([shard_of(client_id, 8) for client_id in ClientIds(4000)])
        assert len(counts) == 8
        assert (np.abs(counts - 500) < 6 * 500**0.5).all()


class TestCreate:
    def test_each_shard_has_an_empty_ledger_of_its_users(self, clients):
        for shard in range(2):
            with Ledger(clients.shard_folder(shard), clients.owners[shard]) as ledger:
                assert (ledger.releases(), ledger.verify()) == ({}, 0)
        members = [shard_of(client_id, 2) for client_id in clients.client_ids]
        assert sorted(set(members)) == [0, 1]  # both have some, and each client has one
        assert len(set(clients.owners)) == 2
        assert clients.users("client-00002") == ("e", "f", "g")

    def test_owners_change_with_users_and_shards(self, clients):
        for other in (
            Partitions((("a",), ("b",), ("c",))),
            Partitions((("c", "d"), ("a", "b"), ("e", "f", "g"))),
            Partitions(PARTITIONS.shards[:2]),
            Partitions(PARTITIONS.shards, virtual_clients=6),
        ):
            dealt = SimulatedClients(clients.folder, other, clients.shards)
            assert dealt.owners != clients.owners
            with pytest.raises(LedgerUnavailable, match="other clients or users"):
                dealt.spent(BUDGET)

    @pytest.mark.parametrize("missing", [(HEAD,), (HEAD, LEDGER), (HEAD, LEDGER, "replies.db")])
    def test_a_start_that_was_interrupted_is_completed(self, clients, missing):
        for name in missing:  # in the order in which they are made, the head is last
            (clients.shard_folder(1) / name).unlink()
        shutil.rmtree(clients.shard_folder(0))
        with pytest.raises(LedgerUnavailable):  # it is not taken for fresh
            clients.spent(BUDGET)
        clients.create()
        assert clients.spent(BUDGET).participations_max == 0

    def test_a_ledger_that_is_there_stays(self, clients):
        reserve(clients, 0, 4)
        clients.create()
        assert clients.spent(BUDGET).participations_max == 4

    def test_a_ledger_with_a_line_and_no_head_is_never_replaced(self, clients):
        reserve(clients, 0, 4)
        for shard in range(clients.shards):
            (clients.shard_folder(shard) / HEAD).unlink()
        clients.create()
        with pytest.raises(LedgerUnavailable):
            clients.spent(BUDGET)


class TestSpent:
    def test_budgets_by_hand(self, clients):
        # Seven users: two are client 0's, who answered 4 times, two are client 1's, who answered
        # once; three are client 2's, who never did.
        reserve(clients, 0, 4)
        reserve(clients, 1, 1)
        found = clients.spent(BUDGET)
        assert (found.users, found.participations_max) == (7, 4)
        assert found.mu_max == pytest.approx(0.5)
        assert found.epsilon_max == pytest.approx(gaussian_epsilon(0.5, 1e-5))
        assert found.epsilon_median == pytest.approx(gaussian_epsilon(0.25, 1e-5))  # 0 0 0 1 1 4 4

    def test_the_median_of_an_even_number_is_the_upper_one(self, tmp_path):
        clients = SimulatedClients(tmp_path / "clients", Partitions((("a",), ("b",))), 3)
        clients.create()
        reserve(clients, 1, 4)
        found = clients.spent(BUDGET)
        assert found.epsilon_median == found.epsilon_max == gaussian_epsilon(0.5, 1e-5)


def test_failure_logs_are_those_of_the_run_and_its_shards(clients):
    assert clients.failure_logs() == []
    logs = [clients.folder / FAILURES, clients.shard_folder(1) / FAILURES]
    for log in logs:
        log.write_text("Traceback")
    assert clients.failure_logs() == sorted(logs)


def test_clients_that_answered_with_noise_alone_are_counted_once_by_round(clients):
    logs = FailureLogs(clients)
    assert logs.noise_alone("e", 1) == 0
    path = clients.shard_folder(1) / FAILURES
    first = "".join(f"{NOISE_ALONE} e 1 client-0000{n}\nTraceback\n" for n in (1, 2, 2))
    path.write_text(first + f"{NOISE_ALONE} other 1 client-00003\n")
    assert logs.noise_alone("e", 1) == 2
    with path.open("a") as log:
        log.write(f"{NOISE_ALONE} e 2 client-00001\n")
    assert [logs.noise_alone("e", number) for number in (2, 3)] == [1, 0]


def test_only_the_environment_makes_a_process_simulate(monkeypatch):
    monkeypatch.delenv("FED_GSWGAN_SIMULATION", raising=False)
    assert simulation_folder() is None
    for value, folder in (("", None), ("x", Path("x"))):
        monkeypatch.setenv("FED_GSWGAN_SIMULATION", value)
        assert simulation_folder() == folder
