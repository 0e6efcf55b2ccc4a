from pathlib import Path

import pytest

from fed_gswgan.config import BudgetConfig
from fed_gswgan.device import virtual_clients
from fed_gswgan.device.virtual_clients import (
    SIMULATION_FOLDER,
    create_virtual_client,
    reserved_budgets,
    simulation_folder,
    virtual_client_id,
)
from fed_gswgan.privacy.accountant import gaussian_epsilon
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.ledger import Ledger, ReleaseKey
from fed_gswgan.privacy.ledger_file import LedgerUnavailable

BUDGET = BudgetConfig(delta=1e-5)
# mu = 2 / 8 = 0.25 under replace-one, 0.125 under zero-out.
EVENT = SanitizedGradientEvent(samples=1, clipping="sample", clipping_bound=1.0, noise_stddev=8.0)


def reserve(folder, partition_id, times):
    ledger = Ledger(folder / virtual_client_id(partition_id) / "ledger.jsonl", BUDGET)
    for server_round in range(1, times + 1):
        ledger.reserve(ReleaseKey("experiment", server_round, "ab" * 32), EVENT)


def test_client_ids_sort_as_their_partitions():
    assert virtual_client_id(0) == "client-00000"
    ids = [virtual_client_id(i) for i in (2, 10, 99_999)]
    assert ids == sorted(ids)


def test_folder_is_made_once_with_an_empty_ledger(tmp_path):
    folder = tmp_path / "all" / "client-00000"
    create_virtual_client(folder, ("f0001", "f0002"))
    releases = Ledger(folder / "ledger.jsonl", BUDGET).releases()
    assert {user: counts.total() for user, counts in releases.items()} == {"f0001": 0, "f0002": 0}
    assert [p.name for p in folder.parent.iterdir()] == ["client-00000"]


def test_creating_again_leaves_the_ledger_as_it_is(tmp_path):
    folder = tmp_path / virtual_client_id(0)
    create_virtual_client(folder, ("f0001",))
    reserve(tmp_path, 0, 3)
    before = (folder / "ledger.jsonl").read_bytes()
    create_virtual_client(folder, ("f0001",))
    assert (folder / "ledger.jsonl").read_bytes() == before


def test_folder_whose_ledger_is_gone_stays_without_one(tmp_path):
    folder = tmp_path / virtual_client_id(0)
    create_virtual_client(folder, ("f0001",))
    (folder / "ledger.jsonl").unlink()
    create_virtual_client(folder, ("f0001",))
    assert list(folder.iterdir()) == []


def test_whoever_comes_second_takes_the_folder_of_the_first(tmp_path, monkeypatch):
    folder = tmp_path / virtual_client_id(0)
    create = Ledger.create

    def create_while_another_process_is_faster(path, users):
        monkeypatch.setattr(Ledger, "create", create)
        folder.mkdir()
        create(folder / "ledger.jsonl", ("first",))
        create(path, users)

    monkeypatch.setattr(Ledger, "create", create_while_another_process_is_faster)
    create_virtual_client(folder, ("second",))
    assert set(Ledger(folder / "ledger.jsonl", BUDGET).releases()) == {"first"}
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]


def test_reserved_budgets_by_hand(tmp_path):
    # Seven users: two wrote with client 0, who answered 4 times, two with client 1, who answered
    # once; three are of clients who never did.
    partitions = (("a", "b"), ("c", "d"), ("e",), ("f", "g"))
    for partition_id, times in ((0, 4), (1, 1), (2, 0)):
        folder = tmp_path / virtual_client_id(partition_id)
        create_virtual_client(folder, partitions[partition_id])
        reserve(tmp_path, partition_id, times)
    found = reserved_budgets(tmp_path, partitions, BUDGET)
    assert found.users == 7
    assert found.participations_max == 4
    assert found.epsilon_max == pytest.approx(gaussian_epsilon(0.5, 1e-5))
    assert found.epsilon_median == pytest.approx(gaussian_epsilon(0.25, 1e-5))  # 0 0 0 1 1 4 4

    zero_out = BudgetConfig(delta=1e-5, neighboring_relation="zero-out")
    found = reserved_budgets(tmp_path, partitions, zero_out)
    assert found.epsilon_max == pytest.approx(gaussian_epsilon(0.25, 1e-5))


def test_clients_who_were_never_asked_spent_nothing(tmp_path):
    found = reserved_budgets(tmp_path, (("a",), ("b", "c")), BUDGET)
    assert (found.users, found.participations_max) == (3, 0)
    assert found.epsilon_max == found.epsilon_median == 0.0


def test_client_whose_ledger_is_gone_is_not_counted_as_fresh(tmp_path):
    (tmp_path / virtual_client_id(0)).mkdir()
    with pytest.raises(LedgerUnavailable):
        reserved_budgets(tmp_path, (("a",),), BUDGET)


@pytest.mark.parametrize(("value", "folder"), [(None, None), ("", None), ("x", Path("x"))])
def test_only_the_environment_makes_a_process_simulate(monkeypatch, value, folder):
    if value is None:
        monkeypatch.delenv(SIMULATION_FOLDER, raising=False)
    else:
        monkeypatch.setenv(SIMULATION_FOLDER, value)
    assert simulation_folder() == folder
    assert virtual_clients.SIMULATION_FOLDER == "FED_GSWGAN_SIMULATION"
