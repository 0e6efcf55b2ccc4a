import json
import os
import shutil

import pytest

from fed_gswgan.privacy import ledger_file
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.ledger import Ledger, ReleaseKey
from fed_gswgan.privacy.ledger_file import LedgerFile
from fed_gswgan.privacy.ledger_head import LedgerHead, head_path, read_head, write_head
from fed_gswgan.privacy.policy import DevicePolicy
from fed_gswgan.privacy.refusals import LedgerUnavailable

EVENT = SanitizedGradientEvent(samples=4, clipping="sample", clipping_bound=1.0, noise_stddev=8.0)
RELEASES = 4


def reserve(path, server_round, user="f0001"):
    key = ReleaseKey("experiment", server_round, "ab" * 32)
    Ledger(path, (user,), DevicePolicy(), lambda: 1000.0 + server_round).reserve(key, EVENT)


def make_ledger(path, releases=RELEASES, user="f0001"):
    """Make a ledger and return its head after 0, 1, .. releases, the bytes of the head's file."""
    Ledger.create(path, (user,))
    heads = [head_path(path).read_bytes()]
    for server_round in range(1, releases + 1):
        reserve(path, server_round, user)
        heads.append(head_path(path).read_bytes())
    return heads


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "ledger.jsonl"
    make_ledger(path)
    return path


def lines_of(path):
    return path.read_bytes().splitlines(keepends=True)


def assert_unavailable(path, said="counts as exhausted"):
    """It is, and looking at it changed neither file."""
    before = {p.name: p.read_bytes() for p in path.parent.iterdir() if p.is_file()}
    for _ in range(2):  # and it does not recover by being asked again
        with pytest.raises(LedgerUnavailable, match=said):
            reserve(path, 9)
    assert {p.name: p.read_bytes() for p in path.parent.iterdir() if p.is_file()} == before


def rechained(entries):
    """Return a whole ledger of these entries, as somebody who knows the format would forge it."""
    forged, last_hash = b"", ""
    for entry in entries:
        line, last_hash = ledger_file._chain(last_hash, entry)
        forged += line
    return forged


def test_a_ledger_and_its_head_as_they_were_left_are_accepted(path):
    assert read_head(path).size_bytes == path.stat().st_size
    assert read_head(path).last_hash == json.loads(lines_of(path)[-1])["hash"]
    reserve(path, 9)
    assert read_head(path).size_bytes == path.stat().st_size


@pytest.mark.parametrize("cut", [1, 2, RELEASES])
def test_lines_cut_from_the_end_are_missed(path, cut):
    path.write_bytes(b"".join(lines_of(path)[:-cut]))
    assert_unavailable(path, "was cut")


def test_half_a_line_cut_from_the_end_is_missed(path):
    last = len(lines_of(path)[-1])
    path.write_bytes(path.read_bytes()[: -last // 2])
    assert_unavailable(path, "was cut")


def test_lines_cut_behind_the_back_of_a_running_process_are_missed(path):
    file = LedgerFile(path)
    with file.locked():
        pass
    path.write_bytes(b"".join(lines_of(path)[:-1]))
    with pytest.raises(LedgerUnavailable, match="was cut"), file.locked():
        pass


def test_other_lines_in_place_of_those_that_were_cut_are_noticed(path):
    whole, head = path.read_bytes(), head_path(path).read_bytes()
    entries = [json.loads(line)["entry"] for line in whole.splitlines()]
    path.write_bytes(rechained(entries[:-2]))
    head_path(path).unlink()
    write_head(path, LedgerHead(path.stat().st_size, json.loads(lines_of(path)[-1])["hash"]))
    for server_round in (8, 9):
        reserve(path, server_round)
    head_path(path).write_bytes(head)
    assert path.stat().st_size == len(whole)
    assert_unavailable(path, "is not the one that ledger.head ends")


FIELDS = {
    "experiment_id": "another",
    "server_round": 5,
    "request_hash": "cd" * 32,
    "policy": "0" * 16,
    "unix_seconds": 0.0,
    "user": "f0002",
    "kind": "other",
}
EVENT_FIELDS = {
    "samples": 1, "clipping": "message", "clipping_bound": 2.0, "noise_stddev": 800.0,
    "noise_added_by": "server",
}  # fmt: skip


@pytest.mark.parametrize("number", [1, RELEASES])
@pytest.mark.parametrize("field", [*FIELDS, *EVENT_FIELDS])
def test_an_edit_is_noticed_even_where_every_hash_was_computed_anew(path, number, field):
    entries = [json.loads(line)["entry"] for line in lines_of(path)]
    assert {*entries[number]} == {*FIELDS, "event"}
    assert {*entries[number]["event"]} == {*EVENT_FIELDS}
    if field in EVENT_FIELDS:
        entries[number]["event"][field] = EVENT_FIELDS[field]
    else:
        entries[number][field] = FIELDS[field]
    path.write_bytes(rechained(entries))
    assert_unavailable(path, "was cut|is not the one that ledger.head ends")


def test_a_forged_ledger_of_the_same_length_is_noticed_by_its_last_hash(path):
    entries = [json.loads(line)["entry"] for line in lines_of(path)]
    entries[1]["event"]["noise_stddev"] = 9.0
    forged = rechained(entries)
    assert len(forged) == path.stat().st_size
    path.write_bytes(forged)
    assert_unavailable(path, "is not the one that ledger.head ends")


@pytest.mark.parametrize("removed", ["ledger.head", "ledger.jsonl", "both"])
def test_what_was_removed_is_not_taken_for_new(path, removed):
    for name in ("ledger.head", "ledger.jsonl"):
        if removed in (name, "both"):
            (path.parent / name).unlink()
    assert_unavailable(path)
    if removed != "both":
        with pytest.raises(FileExistsError):
            Ledger.create(path, ("f0001",))
        assert_unavailable(path)


NO_HEADS = {
    "empty": b"",
    "half of it": b'{"size_bytes": 10, "last_h',
    "no text": b"\xff\xfe",
    "null": b"null",
    "a number": b"17",
    "a list": b'[10, "ab"]',
    "too deep": b"[" * 100_000,
    "no size": b'{"last_hash": "ab"}',
    "no hash": b'{"size_bytes": 10}',
    "one thing more": b'{"size_bytes": 10, "last_hash": "ab", "entries": 1}',
    "size in words": b'{"size_bytes": "10", "last_hash": "ab"}',
    "half a byte": b'{"size_bytes": 10.5, "last_hash": "ab"}',
    "size that is a bool": b'{"size_bytes": true, "last_hash": "ab"}',
    "size that is no number": b'{"size_bytes": NaN, "last_hash": "ab"}',
    "hash that is a number": b'{"size_bytes": 10, "last_hash": 10}',
    "nothing yet": b'{"size_bytes": 0, "last_hash": ""}',
    "less than nothing": b'{"size_bytes": -1, "last_hash": ""}',
}


@pytest.mark.parametrize("content", NO_HEADS.values(), ids=NO_HEADS)
def test_a_head_that_is_none_makes_the_ledger_unavailable(path, content):
    head_path(path).write_bytes(content)
    with pytest.raises(LedgerUnavailable, match=r"^ledger.head.*exhausted"):
        read_head(path)
    assert_unavailable(path, r"^ledger.head")


def test_a_head_that_cannot_be_read_makes_the_ledger_unavailable(path):
    head_path(path).unlink()
    head_path(path).mkdir()
    assert_unavailable(path, "ledger.head, where ledger ledger.jsonl ends: Is a directory")


@pytest.mark.parametrize("bytes_more", [-400, -1, 1, 400])
def test_a_head_with_another_size_is_noticed(path, bytes_more):
    head = read_head(path)
    write_head(path, LedgerHead(head.size_bytes + bytes_more, head.last_hash))
    assert_unavailable(path, "was cut|is not the one")


def test_a_head_with_another_hash_is_noticed(path):
    head = read_head(path)
    write_head(path, LedgerHead(head.size_bytes, head.last_hash[:-1] + "x"))
    assert_unavailable(path, "is not the one that ledger.head ends")


@pytest.mark.parametrize("releases", [RELEASES - 1, RELEASES, RELEASES + 1])
def test_the_head_of_another_ledger_is_noticed(path, tmp_path, releases):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "ledger.jsonl"
    make_ledger(other, releases, user="f0002")
    shutil.copy(head_path(other), head_path(path))
    assert_unavailable(path, "was cut|is not the one")


@pytest.mark.parametrize("behind", [1, 2, RELEASES])
def test_a_head_that_lags_after_a_crash_is_brought_up_to_the_ledger(tmp_path, behind):
    path = tmp_path / "ledger.jsonl"
    heads = make_ledger(path)
    head_path(path).write_bytes(heads[-1 - behind])
    releases = Ledger(path, ("f0001",), DevicePolicy()).releases()
    assert releases["f0001"].total() == RELEASES  # what was reserved is spent
    assert head_path(path).read_bytes() == heads[-1]


def test_a_crash_between_line_and_head_leaves_the_line_spent(path, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ledger_file, "write_head", killed)
        with pytest.raises(KeyboardInterrupt):
            reserve(path, 9)
    assert read_head(path).size_bytes < path.stat().st_size
    releases = Ledger(path, ("f0001",), DevicePolicy()).releases()
    assert releases["f0001"].total() == RELEASES + 1
    assert read_head(path).size_bytes == path.stat().st_size


def test_a_head_that_cannot_be_written_releases_nothing_and_the_line_stays_spent(path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    before, ledger = head_path(path).read_bytes(), Ledger(path, ("f0001",), DevicePolicy())
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(LedgerUnavailable, match="No space left on device; nothing was rel"):
            ledger.reserve(ReleaseKey("experiment", 9, "ab" * 32), EVENT)
    assert head_path(path).read_bytes() == before
    assert ledger.releases()["f0001"].total() == RELEASES + 1
    assert read_head(path).size_bytes == path.stat().st_size


def test_a_head_is_put_in_place_as_a_whole_and_for_its_owner_alone(path):
    with open(head_path(path), "rb") as reader:
        before = head_path(path).read_bytes()
        reserve(path, 9)
        assert reader.read() == before
    assert head_path(path).read_bytes() != before
    assert head_path(path).stat().st_mode & 0o777 == 0o600


def test_the_head_lies_beside_its_ledger(tmp_path):
    assert head_path(tmp_path / "asked.jsonl") == tmp_path / "asked.head"
