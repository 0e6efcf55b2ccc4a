import os
import signal
import sys
import time
from pathlib import Path

import pytest

from deploy.program import Program, command_of, descendants, stop_all

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
# Starts a child and tells its id; ends when it is asked to, and the child is left to itself.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


@pytest.fixture
def program(tmp_path):
    made = []

    def make(command, name="program") -> Program:
        made.append(Program(name, command, os.environ, tmp_path, tmp_path / f"{name}.log"))
        return made[-1]

    yield make
    stop_all(made)


def wait_for_log(program):
    deadline = time.monotonic() + 60
    while not program.last_lines():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return program.last_lines()


def runs(process_id):
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_program_is_started_again_by_the_same_object(program):
    sleeper = program(SLEEPER)
    assert not sleeper.alive()
    sleeper.start()
    first = sleeper.process_id
    sleeper.kill()
    assert not sleeper.alive()
    sleeper.start()
    assert sleeper.alive()
    assert sleeper.process_id != first


def test_a_process_that_ends_while_it_is_looked_at_is_no_descendant(program, monkeypatch):
    parent = program([sys.executable, "-c", PARENT])
    parent.start()
    child = int(wait_for_log(parent))

    def gone(process_id):
        os.kill(child, signal.SIGKILL)
        return command_of(process_id)

    monkeypatch.setattr("deploy.program.command_of", gone)
    deadline = time.monotonic() + 60
    while (found := descendants(parent.process_id)) and time.monotonic() < deadline:
        assert all(d.command for d in found)  # the kernel may still be ending it
    assert found == []


def test_stopping_ends_what_a_program_started_too(program):
    parent = program([sys.executable, "-c", PARENT])
    parent.start()
    child = int(wait_for_log(parent))
    assert [d.process_id for d in descendants(parent.process_id)] == [child]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deploy.program.STOP_PATIENCE_SECONDS", 0.5)
        stop_all([parent])
    assert not runs(child)


def test_who_does_not_listen_is_killed(program, monkeypatch):
    stubborn = program([sys.executable, "-c", STUBBORN])
    stubborn.start()
    wait_for_log(stubborn)
    monkeypatch.setattr("deploy.program.STOP_PATIENCE_SECONDS", 0.5)
    stop_all([stubborn])
    assert not stubborn.alive()


def test_stopping_what_never_started_is_no_error(program):
    never_started = program(SLEEPER)
    stop_all([never_started])
    assert not never_started.alive()
    assert not never_started.log.exists()
