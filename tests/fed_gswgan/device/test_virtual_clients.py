import shutil
from pathlib import Path

import pytest

from fed_gswgan.data.partition import Partitions
from fed_gswgan.device import virtual_clients
from fed_gswgan.device.client_folder import note_failure
from fed_gswgan.device.population import Population
from fed_gswgan.device.virtual_clients import (
    SIMULATION_FOLDER,
    RemoteClients,
    VirtualClients,
    clients_of_process,
    simulation_folder,
)
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import Ledger, ReleaseKey
from fed_gswgan.privacy.policy import DevicePolicy
from fed_gswgan.privacy.refusals import LedgerUnavailable

BUDGET = DevicePolicy(delta=1e-5)
PARTITIONS = Partitions((("a", "b"), ("c", "d"), ("e", "f", "g")))
# mu = 2 / 8 = 0.25 under replace-one, 0.125 under zero-out.
EVENT = SanitizedGradientEvent(samples=1, clipping="sample", clipping_bound=1.0, noise_stddev=8.0)


def reserve(folder, partition_id, times, partitions=PARTITIONS):
    path = Population(folder, partitions).open(partition_id) / "ledger.jsonl"
    ledger = Ledger(path, partitions.users(partition_id), BUDGET)
    for server_round in range(1, times + 1):
        ledger.reserve(ReleaseKey("experiment", server_round, "ab" * 32), EVENT)


def test_reserved_budgets_by_hand(tmp_path):
    # Seven users: two wrote with client 0, who answered 4 times, two with client 1, who answered
    # once; three with client 2, who never did.
    folder = tmp_path / "clients"
    Population.create(folder, PARTITIONS)
    reserve(folder, 0, 4)
    reserve(folder, 1, 1)
    found = VirtualClients(folder).reserved(PARTITIONS, BUDGET)
    assert found.users == 7
    assert found.participations_max == 4
    assert found.mu_max == pytest.approx(0.5)
    assert found.epsilon_max == pytest.approx(gaussian_epsilon(0.5, 1e-5))
    assert found.epsilon_median == pytest.approx(gaussian_epsilon(0.25, 1e-5))  # 0 0 0 1 1 4 4

    zero_out = DevicePolicy(delta=1e-5, neighboring_relation="zero-out")
    found = VirtualClients(folder).reserved(PARTITIONS, zero_out)
    assert found.mu_max == pytest.approx(0.25)
    assert found.epsilon_max == pytest.approx(gaussian_epsilon(0.25, 1e-5))


def test_median_of_an_even_number_of_users_is_the_upper_one(tmp_path):
    partitions = Partitions((("a",), ("b",)))
    Population.create(tmp_path / "clients", partitions)
    reserve(tmp_path / "clients", 1, 4, partitions)
    found = VirtualClients(tmp_path / "clients").reserved(partitions, BUDGET)
    assert found.epsilon_median == found.epsilon_max == pytest.approx(gaussian_epsilon(0.5, 1e-5))


def test_clients_who_were_never_asked_spent_nothing(tmp_path):
    Population.create(tmp_path / "clients", PARTITIONS)
    found = VirtualClients(tmp_path / "clients").reserved(PARTITIONS, BUDGET)
    assert (found.users, found.participations_max) == (7, 0)
    assert found.mu_max == found.epsilon_max == found.epsilon_median == 0.0


@pytest.mark.parametrize("gone", ["ledger", "client", "population", "folder"])
def test_client_whose_ledger_is_gone_is_not_counted_as_fresh(tmp_path, gone):
    folder = tmp_path / "clients"
    Population.create(folder, PARTITIONS)
    client = Population(folder, PARTITIONS).open(2)
    {
        "ledger": (client / "ledger.jsonl").unlink,
        "client": lambda: shutil.rmtree(client),
        "population": (folder / "population").unlink,
        "folder": lambda: shutil.rmtree(folder),
    }[gone]()
    with pytest.raises(LedgerUnavailable):
        VirtualClients(folder).reserved(PARTITIONS, BUDGET)


def test_writers_dealt_otherwise_are_not_counted_as_those_of_the_ledger(tmp_path):
    Population.create(tmp_path / "clients", PARTITIONS)
    dealt_otherwise = Partitions((("a",), ("b",), ("c",)))
    with pytest.raises(LedgerUnavailable):
        VirtualClients(tmp_path / "clients").reserved(dealt_otherwise, BUDGET)


def fail(folder, what):
    try:
        raise ValueError(what)
    except ValueError:
        note_failure(folder)


def test_failures_are_appended_for_their_owner_alone(tmp_path):
    fail(tmp_path, "first")
    fail(tmp_path, "second")
    log = tmp_path / "failures.log"
    assert log.read_text().index("ValueError: first") < log.read_text().index("ValueError: second")
    assert log.stat().st_mode & 0o777 == 0o600


def test_noting_a_failure_never_fails(tmp_path):
    fail(tmp_path / "gone", "first")
    (tmp_path / "failures.log").mkdir()
    fail(tmp_path, "second")
    assert not (tmp_path / "gone").exists()


def test_failed_clients_are_those_with_a_log(tmp_path):
    folder = tmp_path / "clients"
    Population.create(folder, PARTITIONS)
    assert VirtualClients(folder).failure_logs() == []
    for partition_id in (2, 0):
        fail(Population(folder, PARTITIONS).open(partition_id), "first")
    logs = [folder / f"client-0000{i}" / "failures.log" for i in (0, 2)]
    assert VirtualClients(folder).failure_logs() == logs
    fail(folder, "before a client was open")
    assert set(VirtualClients(folder).failure_logs()) == {folder / "failures.log", *logs}
    assert VirtualClients(tmp_path / "gone").failure_logs() == []


def test_of_remote_clients_nothing_is_made_or_seen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RemoteClients().create(PARTITIONS)
    assert list(tmp_path.iterdir()) == []
    assert RemoteClients().reserved(PARTITIONS, BUDGET) is None
    assert RemoteClients().failure_logs() == []


@pytest.mark.parametrize(("value", "folder"), [(None, None), ("", None), ("x", Path("x"))])
def test_only_the_environment_makes_a_process_simulate(monkeypatch, value, folder):
    if value is None:
        monkeypatch.delenv(SIMULATION_FOLDER, raising=False)
    else:
        monkeypatch.setenv(SIMULATION_FOLDER, value)
    assert simulation_folder() == folder
    assert clients_of_process() == (VirtualClients(folder) if folder else RemoteClients())
    assert virtual_clients.SIMULATION_FOLDER == "FED_GSWGAN_SIMULATION"
