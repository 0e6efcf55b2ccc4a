"""A guard under its own account against whoever has the relay's: a hostile bundle, forged frames.

Two accounts need root to be told apart; without it both sides share one, and what only the system
can refuse is skipped.
"""

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fed_gswgan.device.device_folder import create_device
from fed_gswgan.device.device_settings import DeviceSettings
from fed_gswgan.privacy.refusals import MalformedInput, RequestExceedsPolicy
from tests.client.hostile_client_app import require_sanitized
from tests.fed_gswgan.device.forged_frames import FORGERIES
from tests.fed_gswgan.device.served_device import ServedDevice, exchange, train_frame

ROOT = Path(__file__).parents[2]
UNPICKLED = Path("/tmp/fed-gswgan-unpickled")
NOBODY = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
# The guard keeps this account, the relay becomes nobody: two users, one group, the socket's.
GUARD = {"group": NOBODY.pw_gid} if NOBODY else {}
RELAY = [str(NOBODY.pw_uid), str(NOBODY.pw_gid)] if NOBODY else []
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
CODES = {
    "MALFORMED_INPUT": MalformedInput.code,
    "REQUEST_EXCEEDS_POLICY": RequestExceedsPolicy.code,
}
POLICY = "max-epsilon = 100000.0\nmax-samples = 8\nmax-critic-batches = 2\n"
QUICK, ALL = 300, 10_000


@pytest.fixture(scope="module")
def device():
    """A device with a PNG folder, served by the guard's account."""
    home = Path(tempfile.mkdtemp(prefix="fed-gswgan-"))  # the path to it must be open to both
    home.chmod(0o711)
    try:
        own = home / "alice"
        own.mkdir()
        for name in "0123456789":
            (own / "images" / name).mkdir(parents=True)
            ink = np.full((28, 28), 255, np.uint8)
            ink[8:20, int(name) + 9] = 0
            Image.fromarray(ink).save(own / "images" / name / "one.png")
        (own / "images").chmod(0o700)
        (own / "owners-policy.toml").write_text(POLICY)
        folder = own / "device"
        settings = DeviceSettings(client_id="alice", data=str(own / "images"))
        create_device(folder, settings, own / "owners-policy.toml")
        if NOBODY:
            os.chown(own, -1, NOBODY.pw_gid)
            os.chown(folder, -1, NOBODY.pw_gid)
        served = ServedDevice(folder, cwd="/", env=ENVIRONMENT, **GUARD)
        assert served.said.startswith("serving alice at "), served.log()
        yield served
        assert served.stop() == 0
    finally:
        shutil.rmtree(home)


@pytest.fixture(scope="module")
def found(device):
    """What the hostile app got, run as Flower runs it: a process of the relay's account."""
    UNPICKLED.unlink(missing_ok=True)
    data = device.folder.parent / "images"
    ran = subprocess.run(
        [sys.executable, "-m", "tests.client.hostile_client_app", str(device.socket),
         str(device.folder), str(data), str(device.process.pid), *RELAY],
        env=ENVIRONMENT, cwd="/", capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_a_hostile_bundle_gets_sanitized_replies_and_refusals_and_nothing_else(device, found):
    answers = {name: answer for name, answer in found.items() if name != "files"}
    require_sanitized(answers, CODES, device.log())
    assert device.charges() == 1
    assert not UNPICKLED.exists()


@pytest.mark.skipif(NOBODY is None, reason="needs root, to run two accounts")
def test_a_hostile_bundle_reaches_no_file_and_no_memory_of_the_guards_account(device, found):
    assert found["files"] == dict.fromkeys(found["files"], "PermissionError")
    assert len(found["files"]) == 16
    assert device.process.poll() is None


@pytest.mark.parametrize("count", [QUICK, pytest.param(ALL, marks=pytest.mark.slow)])
def test_forged_frames_are_each_refused_by_name_and_none_is_applied(device, count):
    random, names = np.random.default_rng(0), list(FORGERIES)
    exchange(device.socket, b"")
    ledger = {path: path.read_bytes() for path in device.folder.glob("ledger.*")}
    logged = Counter(line.split(": ")[1] for line in refusals(device))
    told = Counter()
    UNPICKLED.unlink(missing_ok=True)
    for number in range(count):
        if number == count // 10:
            resident = device.resident_bytes()
        name = names[number % len(names)]
        answer = exchange(device.socket, FORGERIES[name].write(random))
        expected = FORGERIES[name].refusal
        assert answer.kind == "refusal", (number, name)
        assert answer.config["code"] == CODES[expected], (number, name, answer.config["reason"])
        assert answer.config["reason"].startswith(f"{expected}: ")
        assert answer.arrays == {}
        told[expected] += 1
    assert device.resident_bytes() - resident < 16 * 2**20
    assert {path: path.read_bytes() for path in device.folder.glob("ledger.*")} == ledger
    assert not UNPICKLED.exists()
    assert Counter(line.split(": ")[1] for line in refusals(device)) - logged == told
    assert exchange(device.socket, b"").kind == "refusal"
    assert not (device.folder / "failures.log").exists()


def refusals(device):
    return [line for line in device.log().splitlines() if " WARNING refused uid " in line]


def test_after_all_that_an_honest_relay_is_answered(device):
    assert device.ask(train_frame(3)).kind == "reply"
