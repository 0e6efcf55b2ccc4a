"""A device that ``fed-gswgan device serve`` serves, as a process of its own."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fed_gswgan.device.device_folder import create_device
from fed_gswgan.device.device_settings import DeviceSettings
from fed_gswgan.device.guard_client import ask_guard
from fed_gswgan.device.guard_frame import Frame, incoming
from fed_gswgan.wire.message_types import TRAIN
from fed_gswgan.wire.messages import TrainRequest
from fed_gswgan.wire.record_codec import encode_request
from fed_gswgan.wire.record_fields import fields_of

CLIENT_ID = "alice"
SAMPLES = 4
POLICY = """
max-epsilon = 100000.0
max-samples = 8
max-critic-batches = 2
min-noise-stddev = 2.14
"""
TRAINING = {"seed": 3, "critic-width": 8, "critic-steps": 2}
CLI = [sys.executable, "-m", "fed_gswgan.cli", "device"]


def write_digits(path: Path, images: int = 20, seed: int = 0) -> Path:
    """Write faint random drawings of every digit as the owner's NPZ file."""
    random = np.random.default_rng(seed)
    pixels = (random.random((images, 28, 28)) * 100).astype(np.uint8)
    np.savez(path, images=pixels, labels=np.arange(images) % 10)
    path.chmod(0o600)
    return path


def make_device(folder: Path, policy: str = POLICY, **settings: Any) -> Path:
    """Make a device whose data lies beside its folder."""
    folder.parent.mkdir(exist_ok=True)
    data = folder.parent / "digits.npz"
    if not data.exists():
        write_digits(data)
    given = {"client_id": CLIENT_ID, "data": str(data), "training": TRAINING} | settings
    policy_file = folder.parent / "owners-policy.toml"
    policy_file.write_text(policy)
    create_device(folder, DeviceSettings(**given), policy_file)
    return folder


def train_request(server_round: int = 1, **fields: Any) -> TrainRequest:
    """Return a request that the device allows unless a field says otherwise."""
    return TrainRequest(
        **{
            "experiment_id": "experiment",
            "server_round": server_round,
            "checkpoint_round": server_round - 1,
            "samples_BCHW": np.full((SAMPLES, 1, 28, 28), 0.5, np.float32),
            "labels_B": np.zeros(SAMPLES, np.int64),
            "critic_samples_NBCHW": np.empty((0, SAMPLES, 1, 28, 28), np.float32),
            "critic_labels_NB": np.empty((0, SAMPLES), np.int64),
            "clipping": "sample",
            "clipping_bound": 1.0,
            "noise_stddev": 2.14,
        }
        | fields
    )


def train_frame(server_round: int = 1, **fields: Any) -> Frame:
    """Return the same as a relay sends it."""
    arrays, config = fields_of(encode_request(train_request(server_round), "float32"))
    return Frame(kind=TRAIN, arrays=arrays, config=dict(config) | fields)


def gradient(answer: Frame) -> np.ndarray:
    """Return the one array of a reply, which holds its round and nothing else."""
    assert answer.kind == "reply", answer.config
    assert set(answer.config) == {"server-round"}
    (values,) = answer.arrays.values()
    return values


def exchange(path: Path, written: bytes, *, hang_up: bool = True) -> Frame:
    """Send bytes, whatever they are, and return the guard's answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as guard:
        guard.settimeout(300)  # a first answer loads PyTorch
        guard.connect(str(path))
        try:
            guard.sendall(written)
            if hang_up:
                guard.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it answered by the first bytes
        reader = incoming(2**20)
        buffer = next(reader)
        while True:
            try:
                while buffer:
                    received = guard.recv_into(buffer)
                    assert received, "no answer"
                    buffer = buffer[received:]
                buffer = next(reader)
            except StopIteration as end:
                return end.value


class ServedDevice:
    """The process, and what its owner sees of it."""

    def __init__(self, folder: Path, command: list[str] | None = None, **popen: Any) -> None:
        self.folder = folder
        self.socket = folder / "guard.sock"
        self._log = folder.parent / f"{folder.name}.log"
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                command or [*CLI, "serve", str(folder)],
                stdout=subprocess.PIPE, stderr=log, text=True, **popen,
            )  # fmt: skip
        self.said = self.process.stdout.readline()

    def ask(self, request: Frame) -> Frame:
        return ask_guard(self.socket, request, patience_seconds=300)

    def charges(self) -> int:
        return len((self.folder / "ledger.jsonl").read_text().splitlines()) - 1

    def log(self) -> str:
        return self._log.read_text()

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self, sent: int = signal.SIGTERM) -> int:
        """End the process and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(sent)
        status = self.process.wait(300)
        self.process.stdout.close()
        return status
