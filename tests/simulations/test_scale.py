"""A population costs what its cohorts cost: counted, not timed."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.scale import measure
from client.app import app as client_app
from fed_gswgan.device.population import POPULATION
from fed_gswgan.reporting.round_log import read_rounds

EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.listdir", "os.scandir")

_watched: list[tuple[Path, Counter[str]]] = []


def _count(event: str, arguments: tuple) -> None:
    """Count what is done to the files of the watched run; an audit hook is never removed."""
    if _watched and event in EVENTS and isinstance(arguments[0], str | Path):
        folder, counts = _watched[-1]
        if Path(arguments[0]).is_relative_to(folder):
            counts[event] += 1


sys.addaudithook(_count)


@pytest.fixture
def count_files(tmp_path):
    """Return a function that runs so many virtual clients, and counts what becomes of files."""

    def count(small_run, clients: int, **settings) -> tuple[Path, Counter[str], int]:
        messages: Counter[str] = Counter()

        def app(message, context):
            messages[message.metadata.message_type] += 1
            return client_app(message, context)

        counts: Counter[str] = Counter()
        _watched.append((tmp_path / f"of-{clients}", counts))
        folder = small_run(f"of-{clients}", virtual_clients=clients, app=app, **settings)
        _watched.pop()
        return folder, counts, messages.total()

    return count


def bytes_on_disk(folder: Path) -> int:
    return sum(512 * path.stat().st_blocks for path in folder.rglob("*"))


def test_a_round_of_a_hundred_thousand_clients_touches_what_one_of_a_thousand_does(
    small_run, count_files
):
    few, few_counts, few_messages = count_files(small_run, 1_000, rounds=4)
    many, many_counts, many_messages = count_files(small_run, 100_000, rounds=4)

    for folder in (few, many):
        assert len(list((folder / "clients").glob("client-*"))) == 4 * 3  # nobody asked twice
    assert many_messages == few_messages == 4 * 3  # no node is asked who it is
    assert many_counts == few_counts
    assert few_counts["open"] > 0
    for name in ("checkpoint", "rounds.jsonl", "asked.jsonl", "clients"):
        sizes = [
            bytes_on_disk(f / name) if (f / name).is_dir() else (f / name).stat().st_size
            for f in (few, many)
        ]
        # The file that says who is new has a block for each stretch of 4096 who was asked.
        assert abs(sizes[1] - sizes[0]) <= (12 * 4096 if name == "clients" else 100), name


def test_virtual_users_are_charged_each_for_itself_and_the_summary_says_that_data_is_shared(
    small_run,
):
    folder = small_run(max_clients=2, virtual_clients=4, cohort_size=4, rounds=2)

    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["clients"], summary["shards"]) == (4, 2)
    assert summary["privacy"]["unit"] == (
        "virtual: 4 clients share 2 shards, so this is not the epsilon of one block of forms"
    )
    assert summary["privacy"]["unit"] in summary["privacy"]["statement"][0]
    assert summary["privacy"]["participations_max"] == 2
    users = [
        json.loads(path.read_text().splitlines()[0])["entry"]["users"]
        for path in sorted((folder / "clients").glob("*/ledger.jsonl"))
    ]
    assert users == [["block-01/0"], ["block-02/0"], ["block-01/1"], ["block-02/1"]]


def test_clients_that_share_a_shard_read_it_once_and_differ_in_all_else(small_run, monkeypatch):
    from client import virtual_device

    read, load = [], virtual_device.load_partition
    monkeypatch.setattr(
        virtual_device,
        "load_partition",
        lambda s, writers: read.append(writers) or load(s, writers),
    )
    replies = []

    def app(message, context):
        reply = client_app(message, context)
        replies.append(reply.content["arrays"]["sanitized-gradient"].numpy().tobytes())
        return reply

    small_run(max_clients=1, virtual_clients=4, cohort_size=4, rounds=1, app=app)

    assert read == [("block-01",)]
    assert len(set(replies)) == 4  # each with a critic and with noise of its own


def test_a_budget_is_each_virtual_users_own(small_run):
    folder = small_run(virtual_clients=6, cohort_size=3, rounds=20, max_participations=1)

    asked = [line["asked"] for line in read_rounds(folder)]
    assert sum(asked) == 6  # and then nobody is left, and the run ends
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["privacy"]["participations_max"] == 1


def test_a_population_that_vanished_is_not_made_again_on_resuming(small_run):
    folder = small_run(virtual_clients=50, rounds=2)
    (folder / "clients" / POPULATION).unlink()

    from client import virtual_device

    virtual_device._opened.cache_clear()
    small_run(virtual_clients=50, rounds=4, resume=True)

    assert not (folder / "clients" / POPULATION).exists()
    later = read_rounds(folder)[2:]
    asked_before = {p.name for p in (folder / "clients").glob("client-*")}
    assert len(asked_before) <= 6
    assert [line["received"] for line in later] == [0, 0]


def test_half_the_users_never_asked_are_half_of_the_median(small_run):
    folder = small_run(virtual_clients=1_000, rounds=2)

    privacy = json.loads((folder / "summary.json").read_text())["privacy"]
    assert privacy["epsilon_from"] == "the clients' ledgers"
    assert privacy["epsilon_median"] == 0.0 < privacy["epsilon_max"]


@pytest.mark.slow
def test_ten_thousand_clients_take_the_memory_of_a_hundred():
    few, many = (measure(clients, rounds=30) for clients in (100, 10_000))

    assert many.participants > few.participants
    assert many.peak_mb < few.peak_mb + 150  # shards and critics of up to 256 clients are kept
