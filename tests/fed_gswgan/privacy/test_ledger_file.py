import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import fed_gswgan
from fed_gswgan.privacy import ledger_file
from fed_gswgan.privacy.ledger_file import LedgerFile
from fed_gswgan.privacy.ledger_head import LedgerHead, write_head
from fed_gswgan.privacy.refusals import BudgetExhausted, LedgerUnavailable

REPOSITORY = Path(fed_gswgan.__file__).parents[1]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "ledger.jsonl"
    LedgerFile.create(path, {"users": ["f0001"]})
    return path


def append(path, *entries):
    with LedgerFile(path).locked() as file:
        file.append(list(entries))


def read(path):
    with LedgerFile(path).locked() as file:
        return file.entries


def script(code, path, *arguments):
    """Start another process that appends to the ledger."""
    lines = "import sys, os\nfrom fed_gswgan.privacy.ledger_file import *\n" + code
    command = [sys.executable, "-c", lines, str(path), *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def test_entries_are_read_back_in_order(path):
    append(path, {"a": 1}, {"b": 0.1})
    append(path, {"c": "ü"})
    with LedgerFile(path).locked() as file:
        assert file.entries == [{"a": 1}, {"b": 0.1}, {"c": "ü"}]
        assert file.header == {"format": ledger_file.FORMAT, "users": ["f0001"]}


def test_each_entry_is_one_readable_line_chained_to_the_one_before(path):
    append(path, {"a": 1}, {"a": 1})
    header, first, second = map(json.loads, path.read_text().splitlines())
    assert first["entry"] == second["entry"] == {"a": 1}
    assert len({header["hash"], first["hash"], second["hash"]}) == 3


def test_create_refuses_an_existing_file_and_leaves_it_as_it_is(path):
    append(path, {"a": 1})
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        LedgerFile.create(path, {"users": []})
    assert path.read_bytes() == before


def test_create_refuses_even_a_file_that_is_no_ledger(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(FileExistsError):
        LedgerFile.create(tmp_path / "empty", {})


def test_create_leaves_ledger_and_head_whether_it_succeeds_or_not(path):
    with pytest.raises(FileExistsError):
        LedgerFile.create(path, {"users": []})
    assert set(path.parent.iterdir()) == {path, path.with_suffix(".head")}


@pytest.mark.parametrize("failing", ["write", "fsync", "link"])
def test_create_that_fails_leaves_nothing(tmp_path, monkeypatch, failing):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ledger_file.os, failing, fail)
        with pytest.raises(OSError, match="No space left"):
            LedgerFile.create(tmp_path / "new", {})
    assert list(tmp_path.iterdir()) == []
    LedgerFile.create(tmp_path / "new", {})
    assert read(tmp_path / "new") == []


def test_ledger_appears_in_one_piece(tmp_path, monkeypatch):
    path, seen = tmp_path / "new", []
    write, link = os.write, os.link
    with monkeypatch.context() as patch:
        patch.setattr(ledger_file.os, "write", lambda *a: seen.append(path.exists()) or write(*a))
        patch.setattr(ledger_file.os, "link", lambda *a: seen.append(path.exists()) or link(*a))
        LedgerFile.create(path, {})
    assert seen == [False, False, True]  # the last is the head's: a ledger first, then its end
    assert read(path) == []


def test_of_two_who_create_at_once_one_wins(tmp_path, monkeypatch):
    path, link = tmp_path / "new", os.link

    def link_while_another_is_faster(*arguments):
        monkeypatch.setattr(ledger_file.os, "link", link)
        LedgerFile.create(path, {"users": ["first"]})
        link(*arguments)

    monkeypatch.setattr(ledger_file.os, "link", link_while_another_is_faster)
    with pytest.raises(FileExistsError):
        LedgerFile.create(path, {"users": ["second"]})
    with LedgerFile(path).locked() as file:
        assert file.header["users"] == ["first"]
    assert set(tmp_path.iterdir()) == {path, path.with_suffix(".head")}


def test_only_the_owner_may_read_a_ledger(path):
    assert path.stat().st_mode & 0o777 == 0o600


def test_missing_ledger_is_unavailable_and_stays_missing(tmp_path):
    with (
        pytest.raises(LedgerUnavailable, match="ledger gone"),
        LedgerFile(tmp_path / "gone.jsonl").locked(),
    ):
        pass
    assert not (tmp_path / "gone.jsonl").exists()


def test_unavailable_counts_as_exhausted():
    assert issubclass(LedgerUnavailable, BudgetExhausted)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:10],
        lambda data: data[:-1],
        lambda data: data[:-20],
        lambda data: data + b"{",
        lambda data: data + b"\n",
        lambda data: data + b"null\n",
        lambda data: data + b'{"entry": 1, "hash": ""}\n',
        lambda data: data + b"\xff\n",
        lambda data: data + data.splitlines(keepends=True)[-1],
        lambda data: b"".join(data.splitlines(keepends=True)[1:]),
        lambda data: b"".join(data.splitlines(keepends=True)[i] for i in (0, 2, 1, 3)),
        lambda data: b"".join(data.splitlines(keepends=True)[i] for i in (0, 2, 3)),
        lambda data: b"".join(data.splitlines(keepends=True)[i] for i in (1, 0, 2, 3)),
    ],
    ids=[
        "empty", "only a piece", "no last newline", "torn last line", "piece of a next line",
        "empty line", "null", "entry that is no table", "no text", "last line twice", "no header",
        "two lines swapped", "a line in the middle gone", "header second",
    ],
)  # fmt: skip
def test_damaged_ledger_is_unavailable(path, damage):
    # Whole lines cut off at the end leave a valid chain: that a backup was put back cannot be seen.
    append(path, {"a": 1}, {"a": 2}, {"a": 3})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(LedgerUnavailable, match=r"^ledger "), LedgerFile(path).locked():
        pass


def test_an_edited_byte_anywhere_is_noticed(path):
    append(path, {"count": 10, "stddev": 2.14}, {"name": "ü"})
    intact = path.read_bytes()
    unnoticed = []
    for position in range(len(intact)):
        # Flipped bits, and what JSON reads as the same: another blank, another line end.
        for other in {intact[position] ^ 1, intact[position] ^ 0x20, *b"\t\r\n 0"}:
            edited = bytearray(intact)
            edited[position] = other
            if edited == intact:
                continue
            path.write_bytes(edited)
            try:
                with LedgerFile(path).locked():
                    unnoticed.append((position, intact[position], other))
            except LedgerUnavailable:
                pass
    assert unnoticed == []


def test_header_of_another_format_is_unavailable(tmp_path):
    line, last_hash = ledger_file._chain("", {"format": "other/1"})
    (tmp_path / "other").write_bytes(line)
    write_head(tmp_path / "other", LedgerHead(len(line), last_hash))
    with pytest.raises(LedgerUnavailable, match="line 1"), LedgerFile(tmp_path / "other").locked():
        pass


def test_ledger_that_shrinks_while_in_use_is_unavailable(path):
    file = LedgerFile(path)
    before = path.read_bytes()
    with file.locked():
        file.append([{"a": 1}])
    path.write_bytes(before)
    with pytest.raises(LedgerUnavailable, match="cut"), file.locked():
        pass


def test_ledger_that_cannot_be_opened_for_writing_is_unavailable(path):
    path.unlink()
    path.mkdir()
    with pytest.raises(LedgerUnavailable), LedgerFile(path).locked():
        pass


def test_two_objects_on_one_path_see_each_others_entries(path):
    first, second = LedgerFile(path), LedgerFile(path)
    for number in range(3):
        for file in (first, second):
            with file.locked():
                file.append([{"number": number}])
    with first.locked():
        assert [entry["number"] for entry in first.entries] == [0, 0, 1, 1, 2, 2]


def test_two_processes_appending_at_once_lose_nothing(path, tmp_path):
    code = """
file, go = LedgerFile(Path(sys.argv[1])), Path(sys.argv[3])
print("ready", flush=True)
while not go.exists():
    pass
for number in range(30):
    with file.locked():
        file.append([{"who": sys.argv[2], "number": number}])
"""
    go = tmp_path / "go"
    processes = [script(code, path, who, str(go)) for who in "ab"]
    assert [process.stdout.readline() for process in processes] == ["ready\n", "ready\n"]
    go.touch()
    for process in processes:
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
    entries = read(path)
    assert len(entries) == 60
    for who in "ab":
        assert [e["number"] for e in entries if e["who"] == who] == list(range(30))


def test_lock_keeps_others_out_until_it_is_released(path):
    code = """
print("waiting", flush=True)
with LedgerFile(Path(sys.argv[1])).locked() as file:
    print(len(file.entries), flush=True)
"""
    with LedgerFile(path).locked() as file:
        process = script(code, path)
        assert process.stdout.readline() == "waiting\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        file.append([{"a": 1}])
    assert process.communicate(timeout=30)[0] == "1\n"


def test_entry_is_synced_to_disk_before_append_returns(path, monkeypatch):
    calls = []
    write, fsync = os.write, os.fsync
    with LedgerFile(path).locked() as file, monkeypatch.context() as patch:
        patch.setattr(ledger_file.os, "write", lambda *a: calls.append("write") or write(*a))
        patch.setattr(ledger_file.os, "fsync", lambda d: calls.append(("fsync", d)) or fsync(d))
        file.append([{"a": 1}, {"a": 2}])
        # The lines, and only then the head, whose own file and folder are synced too.
        assert calls[:3] == ["write", ("fsync", file._descriptor), "write"]
        assert [call[0] for call in calls[3:]] == ["fsync", "fsync"]


def test_new_ledger_and_its_folder_are_synced(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    with monkeypatch.context() as patch:
        patch.setattr(
            ledger_file.os, "fsync", lambda d: synced.append(os.fstat(d).st_ino) or fsync(d)
        )
        LedgerFile.create(tmp_path / "new", {})
    ledger, head = ((tmp_path / name).stat().st_ino for name in ("new", "new.head"))
    folder = tmp_path.stat().st_ino
    assert synced == [ledger, folder, head, folder]


def test_failed_write_leaves_the_old_entries_readable(path, monkeypatch):
    append(path, {"a": 1})
    before, write = path.read_bytes(), os.write
    file = LedgerFile(path)
    with file.locked(), monkeypatch.context() as patch:
        patch.setattr(ledger_file.os, "write", lambda d, data: write(d, data[: len(data) // 2]))
        with pytest.raises(LedgerUnavailable, match=r"ledger.jsonl.*nothing was released"):
            file.append([{"a": 2}])
    assert path.read_bytes() == before
    with file.locked():
        file.append([{"a": 3}])
    assert read(path) == [{"a": 1}, {"a": 3}]


def test_failed_sync_leaves_the_old_entries_readable(path, monkeypatch):
    def fail(descriptor):
        raise OSError(5, "Input/output error")

    before = path.read_bytes()
    with LedgerFile(path).locked() as file, monkeypatch.context() as patch:
        patch.setattr(ledger_file.os, "fsync", fail)
        with pytest.raises(LedgerUnavailable, match="Input/output error"):
            file.append([{"a": 1}])
    assert path.read_bytes() == before


def test_full_disk_leaves_the_old_entries_readable(path):
    code = """
import resource
path = Path(sys.argv[1])
size = path.stat().st_size + 20
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
with LedgerFile(path).locked() as file:
    try:
        file.append([{"a": 2}])
    except LedgerUnavailable as error:
        print(error)
"""
    append(path, {"a": 1})
    process = script(code, path)
    output, errors = process.communicate(timeout=30)
    assert "nothing was released" in output, errors
    assert read(path) == [{"a": 1}]


def test_entry_survives_a_process_killed_right_after_append(path):
    code = """
import signal
with LedgerFile(Path(sys.argv[1])).locked() as file:
    file.append([{"a": 1}])
    os.kill(os.getpid(), signal.SIGKILL)
"""
    process = script(code, path)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert read(path) == [{"a": 1}]  # and its lock went with it


def test_entry_that_is_no_number_is_refused_before_anything_is_written(path):
    before = path.read_bytes()
    with LedgerFile(path).locked() as file, pytest.raises(ValueError):
        file.append([{"a": 1}, {"a": float("nan")}])
    assert path.read_bytes() == before


@pytest.mark.parametrize("torn", [b"{", b'{"entry": {"a": 3}, "hash": "', b"\xff\xfe", b""])
def test_an_incomplete_last_line_is_dropped_and_the_rest_stays(path, torn):
    append(path, {"a": 1}, {"a": 2})
    intact = path.read_bytes()
    path.write_bytes(intact + torn)
    file = LedgerFile(path)
    file.drop_incomplete_line()
    assert path.read_bytes() == intact
    with file.locked():
        file.append([{"a": 3}])
    assert read(path) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_dropping_a_line_mends_nothing_else(path):
    append(path, {"a": 1})
    path.write_bytes(path.read_bytes().replace(b'"a": 1', b'"a": 0') + b"{")
    LedgerFile(path).drop_incomplete_line()
    with pytest.raises(LedgerUnavailable, match="line 2"), LedgerFile(path).locked():
        pass


@pytest.mark.parametrize("entries", [0, 2])
def test_a_line_that_the_head_knows_is_never_dropped(path, entries):
    for number in range(entries):
        append(path, {"a": number})
    torn = path.read_bytes()[:-1]
    path.write_bytes(torn)
    with pytest.raises(LedgerUnavailable, match="cut"):
        LedgerFile(path).drop_incomplete_line()
    assert path.read_bytes() == torn
    with pytest.raises(LedgerUnavailable), LedgerFile(path).locked():
        pass


def test_dropping_a_line_creates_no_ledger(tmp_path):
    with pytest.raises(LedgerUnavailable):
        LedgerFile(tmp_path / "gone").drop_incomplete_line()
    assert list(tmp_path.iterdir()) == []


def test_folder_is_synced_and_let_go_of(tmp_path, monkeypatch):
    descriptors = []
    monkeypatch.setattr(ledger_file.os, "fsync", descriptors.append)
    ledger_file.sync_folder(tmp_path)
    (descriptor,) = descriptors
    with pytest.raises(OSError):
        os.fstat(descriptor)
