import contextlib
import os
import shutil
from pathlib import Path

import pytest

from fed_gswgan.device import virtual_clients
from fed_gswgan.device.client_folder import note_failure
from fed_gswgan.device.virtual_clients import (
    SIMULATION_FOLDER,
    create_virtual_clients,
    failed_clients,
    reserved_budgets,
    simulation_folder,
    virtual_client_id,
)
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import Ledger, ReleaseKey
from fed_gswgan.privacy.policy import DevicePolicy
from fed_gswgan.privacy.refusals import LedgerUnavailable

BUDGET = DevicePolicy(delta=1e-5)
PARTITIONS = (("a", "b"), ("c", "d"), ("e", "f", "g"))
# mu = 2 / 8 = 0.25 under replace-one, 0.125 under zero-out.
EVENT = SanitizedGradientEvent(samples=1, clipping="sample", clipping_bound=1.0, noise_stddev=8.0)


def ledger_of(folder, partition_id):
    return folder / virtual_client_id(partition_id) / "ledger.jsonl"


def reserve(folder, partition_id, times, partitions=PARTITIONS):
    ledger = Ledger(ledger_of(folder, partition_id), partitions[partition_id], BUDGET)
    for server_round in range(1, times + 1):
        ledger.reserve(ReleaseKey("experiment", server_round, "ab" * 32), EVENT)


def test_client_ids_sort_as_their_partitions():
    assert virtual_client_id(0) == "client-00000"
    ids = [virtual_client_id(i) for i in (2, 10, 99_999)]
    assert ids == sorted(ids)


def test_all_clients_are_made_at_once_with_empty_ledgers(tmp_path):
    folder = tmp_path / "run" / "clients"
    create_virtual_clients(folder, PARTITIONS)
    assert sorted(p.name for p in folder.iterdir()) == [virtual_client_id(i) for i in range(3)]
    for partition_id, users in enumerate(PARTITIONS):
        releases = Ledger(ledger_of(folder, partition_id), users, BUDGET).releases()
        assert releases == {user: {} for user in users}
    assert list(folder.parent.iterdir()) == [folder]


def test_clients_are_on_disk_under_their_names_before_anybody_is_asked(tmp_path, monkeypatch):
    folder, synced, fsync = tmp_path / "clients", [], os.fsync
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda d: synced.append(os.fstat(d).st_ino) or fsync(d))
        create_virtual_clients(folder, PARTITIONS)
    assert {path.stat().st_ino for path in (folder, *folder.rglob("*"))} <= set(synced)
    assert synced[-1] == tmp_path.stat().st_ino


def test_only_the_owner_may_look_into_a_client(tmp_path):
    folder = tmp_path / "clients"
    create_virtual_clients(folder, PARTITIONS)
    for path in (folder, *folder.iterdir()):
        assert path.stat().st_mode & 0o777 == 0o700
    assert ledger_of(folder, 0).stat().st_mode & 0o777 == 0o600


def test_creating_again_leaves_the_ledgers_as_they_are(tmp_path):
    folder = tmp_path / "clients"
    create_virtual_clients(folder, PARTITIONS)
    reserve(folder, 0, 3)
    before = ledger_of(folder, 0).read_bytes()
    create_virtual_clients(folder, PARTITIONS)
    assert ledger_of(folder, 0).read_bytes() == before


@pytest.mark.parametrize("missing", ["ledger", "client", "all"])
def test_a_folder_that_is_there_is_never_completed(tmp_path, missing):
    folder = tmp_path / "clients"
    create_virtual_clients(folder, PARTITIONS)
    path = ledger_of(folder, 1)
    path.unlink()
    if missing != "ledger":
        shutil.rmtree(path.parent)
    if missing == "all":
        shutil.rmtree(folder)
        folder.mkdir()
    before = sorted(folder.rglob("*"))
    create_virtual_clients(folder, PARTITIONS)
    assert sorted(folder.rglob("*")) == before
    with pytest.raises(LedgerUnavailable):
        reserved_budgets(folder, PARTITIONS, BUDGET)


def test_no_client_is_there_before_all_of_them_are(tmp_path, monkeypatch):
    folder, create, seen = tmp_path / "clients", Ledger.create, []

    def create_until_the_disk_is_full(path, users):
        seen.append(folder.exists())
        if len(seen) == 2:
            raise OSError(28, "No space left on device")
        create(path, users)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "create", create_until_the_disk_is_full)
        with pytest.raises(OSError, match="No space left"):
            create_virtual_clients(folder, PARTITIONS)
    assert seen == [False, False]
    assert not folder.exists()
    create_virtual_clients(folder, PARTITIONS)
    assert reserved_budgets(folder, PARTITIONS, BUDGET).users == 7


def test_whoever_comes_second_leaves_the_clients_of_the_first(tmp_path, monkeypatch):
    folder, create = tmp_path / "clients", Ledger.create

    def create_while_another_process_is_faster(path, users):
        monkeypatch.setattr(Ledger, "create", create)
        create_virtual_clients(folder, (("first",),))
        reserve(folder, 0, 1, (("first",),))
        create(path, users)

    monkeypatch.setattr(Ledger, "create", create_while_another_process_is_faster)
    with contextlib.suppress(OSError):
        create_virtual_clients(folder, (("second",),))
    assert reserved_budgets(folder, (("first",),), BUDGET).participations_max == 1


def test_reserved_budgets_by_hand(tmp_path):
    # Seven users: two wrote with client 0, who answered 4 times, two with client 1, who answered
    # once; three with client 2, who never did.
    folder = tmp_path / "clients"
    create_virtual_clients(folder, PARTITIONS)
    reserve(folder, 0, 4)
    reserve(folder, 1, 1)
    found = reserved_budgets(folder, PARTITIONS, BUDGET)
    assert found.users == 7
    assert found.participations_max == 4
    assert found.mu_max == pytest.approx(0.5)
    assert found.epsilon_max == pytest.approx(gaussian_epsilon(0.5, 1e-5))
    assert found.epsilon_median == pytest.approx(gaussian_epsilon(0.25, 1e-5))  # 0 0 0 1 1 4 4

    zero_out = DevicePolicy(delta=1e-5, neighboring_relation="zero-out")
    found = reserved_budgets(folder, PARTITIONS, zero_out)
    assert found.mu_max == pytest.approx(0.25)
    assert found.epsilon_max == pytest.approx(gaussian_epsilon(0.25, 1e-5))


def test_median_of_an_even_number_of_users_is_the_upper_one(tmp_path):
    partitions = (("a",), ("b",))
    create_virtual_clients(tmp_path / "clients", partitions)
    reserve(tmp_path / "clients", 1, 4, partitions)
    found = reserved_budgets(tmp_path / "clients", partitions, BUDGET)
    assert found.epsilon_median == found.epsilon_max == pytest.approx(gaussian_epsilon(0.5, 1e-5))


def test_clients_who_were_never_asked_spent_nothing(tmp_path):
    create_virtual_clients(tmp_path / "clients", PARTITIONS)
    found = reserved_budgets(tmp_path / "clients", PARTITIONS, BUDGET)
    assert (found.users, found.participations_max) == (7, 0)
    assert found.mu_max == found.epsilon_max == found.epsilon_median == 0.0


@pytest.mark.parametrize("gone", ["ledger", "client", "folder"])
def test_client_whose_ledger_is_gone_is_not_counted_as_fresh(tmp_path, gone):
    folder = tmp_path / "clients"
    create_virtual_clients(folder, PARTITIONS)
    path = ledger_of(folder, 2)
    {
        "ledger": path.unlink,
        "client": lambda: shutil.rmtree(path.parent),
        "folder": lambda: shutil.rmtree(folder),
    }[gone]()
    with pytest.raises(LedgerUnavailable):
        reserved_budgets(folder, PARTITIONS, BUDGET)
    assert not path.exists()


def test_writers_dealt_otherwise_are_not_counted_as_those_of_the_ledger(tmp_path):
    create_virtual_clients(tmp_path / "clients", PARTITIONS)
    dealt_otherwise = (("a",), ("b",), ("c",))
    with pytest.raises(LedgerUnavailable):
        reserved_budgets(tmp_path / "clients", dealt_otherwise, BUDGET)


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
    create_virtual_clients(folder, PARTITIONS)
    assert failed_clients(folder) == []
    for failed in (folder / virtual_client_id(2), folder / virtual_client_id(0)):
        fail(failed, "first")
    logs = [folder / virtual_client_id(i) / "failures.log" for i in (0, 2)]
    assert failed_clients(folder) == logs
    fail(folder, "before a client was open")
    assert set(failed_clients(folder)) == {folder / "failures.log", *logs}
    assert failed_clients(tmp_path / "gone") == []


@pytest.mark.parametrize(("value", "folder"), [(None, None), ("", None), ("x", Path("x"))])
def test_only_the_environment_makes_a_process_simulate(monkeypatch, value, folder):
    if value is None:
        monkeypatch.delenv(SIMULATION_FOLDER, raising=False)
    else:
        monkeypatch.setenv(SIMULATION_FOLDER, value)
    assert simulation_folder() == folder
    assert virtual_clients.SIMULATION_FOLDER == "FED_GSWGAN_SIMULATION"
