"""``fed-gswgan device serve`` as a process: what survives it, what stops it."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from fed_gswgan.device.critic_slots import _read
from fed_gswgan.device.virtual_clients import SIMULATION_FOLDER
from tests.fed_gswgan.device.served_device import (
    CLIENT_ID,
    ServedDevice,
    gradient,
    make_device,
    train_frame,
)


@pytest.fixture
def served():
    """Return a function that serves a folder until the test ends."""
    devices = []

    def serve(folder, **popen):
        devices.append(ServedDevice(folder, **popen))
        return devices[-1]

    yield serve
    for device in devices:
        device.stop(signal.SIGKILL)


def damage(*paths):
    (path,) = paths
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_critic_begins_anew_and_a_damaged_ledger_stops_the_device(served, tmp_path):
    folder = make_device(tmp_path / "device")
    first = served(folder)
    assert first.said == f"serving {CLIENT_ID} at {folder}/guard.sock\n"
    gradient(first.ask(train_frame(1)))
    assert steps_of(folder) == [2]
    assert first.stop() == 0
    assert not first.socket.exists()

    damage(*folder.rglob("critic-*/*.safetensors"))
    second = served(folder)
    gradient(second.ask(train_frame(2)))
    assert steps_of(folder) == [2]  # not 4, as of a critic that goes on
    assert second.charges() == 2
    assert "is damaged or unfinished" in second.log()
    assert not (folder / "failures.log").exists()
    second.stop(signal.SIGKILL)

    damage(folder / "ledger.jsonl")
    third = served(folder)
    assert third.said == ""
    assert third.process.wait(300) == 1
    assert "LEDGER_UNAVAILABLE" in third.log()
    assert "Traceback" not in third.log()


@pytest.mark.slow
def test_critic_ledger_and_replies_survive_the_process(served, tmp_path):
    folder = make_device(tmp_path / "device")
    first = served(folder)
    replies = [gradient(first.ask(train_frame(number))).tobytes() for number in (1, 2)]
    first.stop(signal.SIGKILL)
    assert first.socket.is_socket()  # in spite of it the next one serves

    second = served(folder)
    assert gradient(second.ask(train_frame(2))).tobytes() == replies[1]
    assert second.charges() == 2
    gradient(second.ask(train_frame(3)))
    assert steps_of(folder) == [4, 6]
    assert second.charges() == 3


def steps_of(folder):
    states = [state for path in folder.rglob("critic-*/*.safetensors") if (state := _read(path))]
    return sorted(state.optimizer_steps for state in states)


@pytest.mark.slow
def test_a_ledger_lost_under_way_ends_all_answers(served, tmp_path):
    device = served(make_device(tmp_path / "device"))
    gradient(device.ask(train_frame(1)))
    (device.folder / "ledger.jsonl").rename(tmp_path / "away")
    assert device.ask(train_frame(2)).config["reason"].startswith("LEDGER_UNAVAILABLE: ")
    # One process serves a device; another is told so, and leaves the socket alone.
    second = served(device.folder)
    assert second.process.wait(300) == 1
    shutil.copy(tmp_path / "away", device.folder / "ledger.jsonl")
    third = served(device.folder)
    assert third.process.wait(300) == 1
    assert "LEDGER_LOCKED: serving.lock was held" in third.log()
    gradient(device.ask(train_frame(3)))


@pytest.mark.slow
def test_no_environment_makes_the_noise_or_the_device_a_simulations(served, tmp_path):
    """Twice the same device, seed, data and request: only the noise can differ, and it does."""
    environment = os.environ | {SIMULATION_FOLDER: str(tmp_path), "FED_GSWGAN_NOISE": "seeded"}
    replies = []
    for name in ("one", "two"):
        device = served(make_device(tmp_path / name / "device"), env=environment)
        replies.append(gradient(device.ask(train_frame(1))))
        device.stop()
    assert (replies[0] - replies[1]).std() == pytest.approx(2.14 * 2**0.5, rel=0.1)


def test_the_guards_process_holds_nothing_of_flower():
    """What must be believed is this project, NumPy and PyTorch, and no framework's wire format."""
    seen = "import sys, fed_gswgan.device.serve; print({'flwr', 'grpc'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
