import os
import pwd
import subprocess
import sys
import threading
import time

import pytest

from fed_gswgan.privacy.durable_file import held, replace_durably, write_durably
from fed_gswgan.privacy.refusals import LedgerLocked, LedgerUnavailable

HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answering.lock"


@pytest.fixture
def holder(path):
    """Another process that holds the lock until its input is closed."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def is_free(path):
    try:
        with held(path, 0):
            return True
    except LedgerLocked:
        return False


def test_a_lock_that_another_process_keeps_is_given_up_after_the_patience(holder, path):
    start = time.monotonic()
    with (
        pytest.raises(LedgerLocked, match=r"^answering.lock was held by another .* for 0.2 s"),
        held(path, 0.2),
    ):
        pytest.fail("the lock was taken twice")
    assert 0.2 <= time.monotonic() - start < 5


def test_a_lock_that_another_process_lets_go_of_in_time_is_taken(holder, path):
    timer = threading.Timer(0.1, holder.stdin.close)
    start = time.monotonic()
    timer.start()
    with held(path, 30):
        assert time.monotonic() - start >= 0.1
    timer.join()


def test_the_lock_of_a_killed_process_is_free(holder, path):
    assert not is_free(path)
    holder.kill()
    holder.wait(timeout=30)
    assert is_free(path)


def test_two_in_one_process_keep_each_other_out_too(path):
    with held(path, 0):
        assert not is_free(path)
    assert is_free(path)


def test_the_lock_is_let_go_of_however_the_block_ends(path):
    with pytest.raises(ZeroDivisionError), held(path, 0):
        raise ZeroDivisionError
    assert is_free(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_lock_that_cannot_be_opened_is_unavailable(tmp_path):
    with (
        pytest.raises(LedgerUnavailable, match=r"^answering.lock: No such file.*exhausted"),
        held(tmp_path / "gone" / "answering.lock", 0),
    ):
        pass


@pytest.fixture
def head(tmp_path):
    """A file that is there, with all that its folder holds."""
    head = tmp_path / "ledger.head"
    head.write_bytes(b"before")
    return head


def test_a_file_is_on_disk_before_it_takes_the_others_place_and_then_its_folder_is(
    head, monkeypatch
):
    steps = []
    write, fsync, put = os.write, os.fsync, os.replace

    def seen(what):
        steps.append((what, head.read_bytes()))

    def record_fsync(descriptor):
        seen("folder" if os.fstat(descriptor).st_ino == head.parent.stat().st_ino else "file")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda *a: seen("write") or write(*a))
        patch.setattr(os, "fsync", record_fsync)
        patch.setattr(os, "replace", lambda *a: seen("replace") or put(*a))
        replace_durably(head, b"after")
    assert steps == [
        ("write", b"before"),
        ("file", b"before"),
        ("replace", b"before"),
        ("folder", b"after"),
    ]


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_file_that_cannot_be_replaced_stays_and_no_draft_is_left(
    head, monkeypatch, failing, error
):
    def fail(*arguments):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(type(error)):
            replace_durably(head, b"after")
    assert head.read_bytes() == b"before"
    assert list(head.parent.iterdir()) == [head]


def test_whoever_reads_meanwhile_finds_one_whole_file_or_the_other(head):
    contents = {b"before", b"a" * 50_000, b"b" * 3}
    seen, done = set(), threading.Event()

    def read():
        while not done.is_set():
            seen.add(head.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(30):
        for content in contents:
            replace_durably(head, content)
    done.set()
    reader.join()
    assert seen <= contents
    assert len(seen) > 1


def test_a_replaced_file_is_for_its_owner_alone(head):
    head.chmod(0o644)
    replace_durably(head, b"after")
    assert head.stat().st_mode & 0o777 == 0o600


def test_a_write_that_the_disk_takes_half_of_is_an_error(head, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda d, data: write(d, data[:3]))
    with head.open("ab") as file, pytest.raises(OSError, match="only 3 of 5 bytes"):
        write_durably(file.fileno(), b"after")


def test_a_lock_that_is_a_link_to_another_file_is_not_taken(tmp_path):
    (tmp_path / "victim").write_text("theirs")
    (tmp_path / "answering.lock").symlink_to("victim")
    with pytest.raises(LedgerUnavailable), held(tmp_path / "answering.lock", 0.0):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have two accounts")
def test_what_root_writes_in_another_accounts_folder_is_that_accounts(tmp_path):
    nobody = pwd.getpwnam("nobody")
    os.chown(tmp_path, nobody.pw_uid, nobody.pw_gid)
    path, lock = tmp_path / "ledger.head", tmp_path / "answering.lock"

    replace_durably(path, b"as root")
    with held(lock, 0.0):
        pass

    for made in (path, lock):
        assert (made.stat().st_uid, made.stat().st_gid) == (nobody.pw_uid, nobody.pw_gid)
        assert made.stat().st_mode & 0o777 == 0o600
