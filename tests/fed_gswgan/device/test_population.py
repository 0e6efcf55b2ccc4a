import os
import shutil
import subprocess
import sys

import pytest

from fed_gswgan.data.partition import Partitions
from fed_gswgan.device.population import POPULATION, Population, virtual_client_id
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.ledger import Ledger, ReleaseKey
from fed_gswgan.privacy.policy import DevicePolicy
from fed_gswgan.privacy.refusals import LedgerUnavailable

SHARDS = (("a", "b"), ("c", "d"), ("e", "f", "g"))
PARTITIONS = Partitions(SHARDS)
EVENT = SanitizedGradientEvent(samples=1, clipping="sample", clipping_bound=1.0, noise_stddev=8.0)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run" / "clients"
    Population.create(folder, PARTITIONS)
    return folder


def reserve(folder, partition_id, server_round=1, partitions=PARTITIONS):
    path = Population(folder, partitions).open(partition_id) / "ledger.jsonl"
    ledger = Ledger(path, partitions.users(partition_id), DevicePolicy())
    ledger.reserve(ReleaseKey("experiment", server_round, "ab" * 32), EVENT)


def clients(folder):
    return sorted(path.name for path in folder.glob("client-*"))


def test_client_ids_sort_as_their_partitions():
    assert virtual_client_id(0) == "client-00000"
    ids = [virtual_client_id(i) for i in (2, 10, 99_999)]
    assert ids == sorted(ids)


def test_a_population_has_no_client_before_one_is_asked(folder):
    assert clients(folder) == []
    assert Population(folder, PARTITIONS).made() == []
    assert list(folder.parent.iterdir()) == [folder]


def test_a_hundred_thousand_clients_cost_what_three_do(tmp_path):
    many = Partitions(SHARDS, virtual_clients=100_000)
    Population.create(tmp_path / "many", many)
    Population(tmp_path / "many", many).open(99_999)

    blocks = (tmp_path / "many" / POPULATION).stat().st_blocks
    assert blocks * 512 <= 2 * 4096  # the header's page, and the one with the byte that was set
    assert clients(tmp_path / "many") == ["client-99999"]
    assert Population(tmp_path / "many", many).made() == [99_999]


def test_a_client_is_made_with_an_empty_ledger_of_its_users(folder):
    client = Population(folder, PARTITIONS).open(2)
    releases = Ledger(client / "ledger.jsonl", SHARDS[2], DevicePolicy()).releases()
    assert releases == {"e": {}, "f": {}, "g": {}}
    assert clients(folder) == ["client-00002"]
    assert Population(folder, PARTITIONS).made() == [2]
    assert list((folder / ".drafts").iterdir()) == []


def test_only_the_owner_may_look_into_the_population(folder):
    client = Population(folder, PARTITIONS).open(0)
    for path in (folder, folder / ".drafts", client):
        assert path.stat().st_mode & 0o777 == 0o700
    for path in (folder / POPULATION, client / "ledger.jsonl", client / "ledger.head"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_population_is_on_disk_under_its_name_before_anybody_is_asked(tmp_path, monkeypatch):
    folder, synced, fsync = tmp_path / "clients", [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: synced.append(os.fstat(d).st_ino) or fsync(d))
    Population.create(folder, PARTITIONS)
    assert {folder.stat().st_ino, (folder / POPULATION).stat().st_ino} <= set(synced)
    assert synced[-1] == tmp_path.stat().st_ino


def test_a_byte_says_on_disk_that_a_ledger_was_made_before_its_client_may_answer(
    folder, monkeypatch
):
    population, synced, fsync = (folder / POPULATION).stat().st_ino, [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda d: synced.append((os.fstat(d).st_ino, os.pread(d, 9, 4096))) or fsync(d)
    )
    Population(folder, PARTITIONS).open(1)
    assert synced[-1] == (population, b"\0\1\0")


def test_the_first_reservation_brings_the_whole_ledger_to_disk(folder, monkeypatch):
    client = Population(folder, PARTITIONS).open(1)
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: synced.append(os.fstat(d).st_ino) or fsync(d))
    reserve(folder, 1)
    files = (client, client / "ledger.jsonl", client / "ledger.head")
    assert {path.stat().st_ino for path in files} <= set(synced)


def test_opening_again_leaves_the_ledger_as_it_is(folder):
    reserve(folder, 0)
    before = (folder / "client-00000" / "ledger.jsonl").read_bytes()
    Population.create(folder, PARTITIONS)
    Population(folder, PARTITIONS).open(0)
    assert (folder / "client-00000" / "ledger.jsonl").read_bytes() == before


@pytest.mark.parametrize("gone", ["ledger.jsonl", "ledger.head", "the folder"])
def test_a_ledger_that_was_made_and_is_gone_is_exhausted(folder, gone):
    reserve(folder, 1)
    client = folder / "client-00001"
    shutil.rmtree(client) if gone == "the folder" else (client / gone).unlink()
    with pytest.raises(LedgerUnavailable):
        reserve(folder, 1, server_round=2)
    assert not (client / gone).exists()
    reserve(folder, 2)  # nobody else is concerned


@pytest.mark.parametrize("damage", ["gone", "cut", "longer", "edited", "empty"])
def test_without_its_file_the_whole_population_is_exhausted(folder, damage):
    path = folder / POPULATION
    content = path.read_bytes()
    path.unlink()
    damaged = {
        "cut": content[:-1],
        "longer": content + b"\0",
        "edited": content.replace(b'"clients": 3', b'"clients": 9'),
        "empty": b"",
    }
    if damage != "gone":
        path.write_bytes(damaged[damage])
    for partition_id in range(3):
        with pytest.raises(LedgerUnavailable):
            Population(folder, PARTITIONS).open(partition_id)
    with pytest.raises(LedgerUnavailable):
        Population(folder, PARTITIONS).made()
    assert clients(folder) == []


@pytest.mark.parametrize(
    "otherwise",
    [
        Partitions(SHARDS[::-1]),
        Partitions(SHARDS[:2]),
        Partitions(SHARDS, 3),
        Partitions(SHARDS, 9),
    ],
)
def test_writers_dealt_otherwise_find_every_ledger_exhausted(folder, otherwise):
    """Or a user could be charged in one client's ledger by one run, in another's by the next."""
    reserve(folder, 0)
    for partition_id in range(len(otherwise)):
        with pytest.raises(LedgerUnavailable, match="dealt"):
            Population(folder, otherwise).open(partition_id)
    assert clients(folder) == ["client-00000"]


def test_a_folder_that_is_there_is_never_completed(tmp_path):
    (tmp_path / "clients").mkdir()
    Population.create(tmp_path / "clients", PARTITIONS)
    assert list((tmp_path / "clients").iterdir()) == []


def test_a_crash_while_a_ledger_is_made_leaves_a_client_that_is_new(folder, monkeypatch):
    def crash(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "create", crash)
        with pytest.raises(KeyboardInterrupt):
            Population(folder, PARTITIONS).open(0)
    assert (clients(folder), Population(folder, PARTITIONS).made()) == ([], [])
    reserve(folder, 0)


def test_a_crash_before_the_byte_is_set_leaves_the_ledger_that_was_made(folder, monkeypatch):
    def crash(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", crash)
        with pytest.raises(KeyboardInterrupt):
            Population(folder, PARTITIONS).open(0)
    made = (folder / "client-00000" / "ledger.jsonl").stat().st_ino
    reserve(folder, 0)
    assert (folder / "client-00000" / "ledger.jsonl").stat().st_ino == made
    assert Population(folder, PARTITIONS).made() == [0]


def test_a_full_disk_makes_no_client_and_leaves_no_draft(folder, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "create", full)
        with pytest.raises(OSError, match="No space left"):
            Population(folder, PARTITIONS).open(0)
    assert clients(folder) == list((folder / ".drafts").iterdir()) == []
    reserve(folder, 0)


def test_processes_that_open_one_client_at_once_make_one_ledger(folder):
    program = (
        "import sys; from pathlib import Path;"
        "from tests.fed_gswgan.device.test_population import reserve;"
        "reserve(Path(sys.argv[1]), 0, int(sys.argv[2]))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(folder), str(number)])
        for number in range(1, 5)
    ]
    assert [process.wait(timeout=120) for process in running] == [0] * 4
    assert len((folder / "client-00000" / "ledger.jsonl").read_text().splitlines()) == 1 + 4 * 2
