"""The guard's service in a process of its own; what it answers with is the caller's."""

import os
import pwd
import signal
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fed_gswgan.device import service
from fed_gswgan.device.service import GuardUnreachable, ask, ask_for_proof, check_path

ROOT = Path(__file__).parents[3]
SERVE = """
import sys, time
from pathlib import Path
from fed_gswgan.device.service import serve
folder = Path(sys.argv[1])
def answer(blob):
    while blob == b"wait" and not (folder / "go").exists():
        time.sleep(0.01)
    return blob[::-1]
def prove(challenge):
    return b"alice " + challenge
serve(folder / "guard.sock", prove, answer, folder / "serving.lock", lambda: print("ready"))
print("stopped")
"""
ASK = """
import os, sys
from pathlib import Path
from fed_gswgan.device import service
service.CONNECT_PATIENCE_SECONDS = 0.1
try:  # loads all that the other account may not read
    service.ask(Path("/nothing"), b"")
except service.GuardUnreachable:
    service.CONNECT_PATIENCE_SECONDS = float(sys.argv[5])
os.setgroups([])
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[2]))
folder = Path(sys.argv[1])
for path in sys.argv[4].split(","):
    try:
        with open(folder / path, "r+b"):
            print(path, "opened")
    except OSError as error:
        print(path, type(error).__name__)
try:
    print("answer", service.ask(folder / "guard.sock", b"abc"))
except service.GuardUnreachable:
    print("answer", "GuardUnreachable")
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-c", SERVE, str(folder)],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory(prefix="guard-") as name:  # short, and open to pass through
        yield Path(name)


@pytest.fixture(scope="module")
def served(folder):
    """A process that serves the folder until this module's tests are over."""
    process = start(folder)
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    yield process
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    monkeypatch.setattr(service, "CONNECT_PATIENCE_SECONDS", 60.0)  # on a busy machine


def test_bytes_go_in_and_out_and_a_challenge_is_answered(served, folder):
    assert ask(folder / "guard.sock", b"abc") == b"cba"
    large = bytes(range(256)) * 2**16  # 16 MB, above gRPC's own limit of 4 MB
    assert ask(folder / "guard.sock", large) == large[::-1]
    assert ask_for_proof(folder / "guard.sock", b"1") == b"alice 1"
    mode = (folder / "guard.sock").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660


def test_a_challenge_is_answered_while_a_request_is(served, folder):
    """A server that starts anew asks who is there while devices still work for the one before."""
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(ask, folder / "guard.sock", b"wait")
        assert ask_for_proof(folder / "guard.sock", b"1") == b"alice 1"
        assert not answer.done()
        (folder / "go").touch()
        assert answer.result() == b"tiaw"


def test_a_second_server_of_the_same_device_is_refused(served, folder):
    second = start(folder)
    said, errors = second.communicate(timeout=120)
    assert (second.returncode, said) == (1, "")
    assert "another process serves this device" in errors
    assert ask(folder / "guard.sock", b"abc") == b"cba"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another account")
@pytest.mark.parametrize("member", [True, False])
def test_modes_decide_whether_another_account_is_answered(served, folder, member):
    """A relay in the group reaches the socket and no file; another account reaches nothing."""
    relay, group, files = pwd.getpwnam("nobody"), 54321, ("ledger.db", "policy.toml")
    os.chown(folder, 0, group)
    os.chown(folder / "guard.sock", 0, group)
    folder.chmod(0o710)
    for name in files:
        (folder / name).write_text("private")
        (folder / name).chmod(0o600)
    gid, patience = (group, "60") if member else (relay.pw_gid, "0.2")
    command = [sys.executable, "-c", ASK, str(folder), str(relay.pw_uid), str(gid)]
    command += [",".join([*files, "serving.lock"]), patience]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    denied = [f"{name} PermissionError" for name in (*files, "serving.lock")]
    answer = "answer b'cba'" if member else "answer GuardUnreachable"
    assert done.stdout.splitlines() == [*denied, answer]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_service_and_removes_the_socket(tmp_path, monkeypatch, number):
    """A socket that a killed process left is replaced; without a guard there is no answer."""
    process = start(tmp_path)
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate()
    monkeypatch.setattr(service, "CONNECT_PATIENCE_SECONDS", 0.2)
    with pytest.raises(GuardUnreachable, match=r"no guard answers at .*guard\.sock"):
        ask(tmp_path / "guard.sock", b"abc")
    process = start(tmp_path)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=120)[0] == "stopped\n"
    assert process.returncode == 0
    assert not (tmp_path / "guard.sock").exists()
    with pytest.raises(GuardUnreachable):
        ask_for_proof(tmp_path / "guard.sock", b"1")


def test_a_socket_that_cannot_be_made_is_named(tmp_path):
    check_path(Path("/" + "x" * 106))
    for name, size in (("x" * 107, 108), ("\u00e4" * 54, 109)):
        with pytest.raises(ValueError, match=f"has {size} bytes, must have at most 107"):
            check_path(Path("/" + name))
    gone = tmp_path / "gone" / "guard.sock"
    with pytest.raises(OSError, match=r"gone/guard\.sock"):
        service.serve(gone, bytes, bytes, tmp_path / "lock", lambda: None)
