"""The client app between a server and a guard at a socket."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from client.app import app as client_app
from fed_gswgan.config import Config
from fed_gswgan.data.partition import load_partition, partitions_of
from fed_gswgan.data.registry import open_source
from fed_gswgan.device.device_folder import create_device
from fed_gswgan.device.device_settings import DeviceSettings, device_share
from fed_gswgan.device.guard_desk import GuardDesk, largest_request_bytes
from fed_gswgan.device.guard_server import GuardServer
from fed_gswgan.device.population import Population
from fed_gswgan.device.virtual_clients import SIMULATION_FOLDER
from fed_gswgan.privacy.refusals import MalformedInput, RequestExceedsPolicy
from fed_gswgan.wire.message_types import CLIENT_FAILED, GUARD_UNREACHABLE, REGISTER, TRAIN, UPDATE
from fed_gswgan.wire.record_codec import encode_request
from tests.conftest import SMALL
from tests.fed_gswgan.device.seeded_guard import open_seeded
from tests.fed_gswgan.device.served_device import train_request

HEAVY = ("torch", "scipy", "sklearn", "h5py", "PIL", "ray", "mpmath", "matplotlib")
CLIENT_ID = "client-00000"

pytestmark = pytest.mark.usefixtures("task_identity")


def test_the_relay_loads_no_mathematics():
    """Flower starts a process for every message: what it imports is paid for each time."""
    code = f"import client.app, sys; print([name for name in {HEAVY} if name in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout == "[]\n"


@pytest.fixture
def relay(tmp_path):
    """Return a function () -> ask, which relays to a guard of seeded noise.

    The device holds what the first simulated client of the run would hold.
    """
    running = []

    def start(dead=False):
        config = Config.from_run_config(SMALL)
        source = open_source(config.data)
        shard = load_partition(source, partitions_of(source, config.data).writers(0))
        np.savez(tmp_path / "own.npz", images=shard.images, labels=shard.labels)
        training = {"seed": config.run.seed} | device_share(SMALL)
        (tmp_path / "policy.toml").write_text("max-epsilon = 1000.0\nmax-samples = 8\n")
        own = DeviceSettings(client_id=CLIENT_ID, data=str(tmp_path / "own.npz"), training=training)
        create_device(tmp_path / "device", own, tmp_path / "policy.toml")
        device = open_seeded(tmp_path / "device", config.run.seed, CLIENT_ID)
        desk = GuardDesk(CLIENT_ID, device.policy, device.guard, device.update_guard)
        if not dead:
            server = GuardServer(
                device.socket, desk.answer, largest_request_bytes(device.policy, 0)
            )
            thread = threading.Thread(target=server.serve)
            thread.start()
            running.append((server, thread))
        return asking(config, {"guard": str(device.socket)})

    yield start
    for server, thread in running:
        server.stop()
        thread.join(60)


def asking(config, node_config):
    """Return a function (content, kind) -> the client app's reply."""
    context = Context(
        run_id=1, node_id=2, node_config=node_config, state=RecordDict(),
        run_config=config.to_run_config(),
    )  # fmt: skip
    return lambda content, kind=TRAIN: client_app(Message(content, 2, kind), context)


def request_of(server_round, downlink_codec="float32", **fields):
    samples = np.random.default_rng(server_round).random((4, 1, 28, 28), dtype=np.float32)
    request = train_request(server_round, samples_BCHW=samples, **fields)
    return encode_request(request, downlink_codec)


def test_the_owner_names_the_client(relay):
    reply = relay()(RecordDict({"config": ConfigRecord({"ask": "client-id"})}), REGISTER)
    assert dict(reply.content["config"]) == {"client-id": CLIENT_ID}


@pytest.mark.parametrize(
    ("downlink", "uplink", "frequencies"),
    [("float32", "float32", 0), ("uint8-deflate", "uint4", 8), ("float16", "uint8", 0)],
)
def test_under_seeded_noise_a_device_answers_as_a_simulated_client(
    relay, tmp_path, monkeypatch, downlink, uplink, frequencies
):
    config = Config.from_run_config(SMALL)
    partitions = partitions_of(open_source(config.data), config.data)
    monkeypatch.setenv(SIMULATION_FOLDER, str(tmp_path / "clients"))
    Population.create(tmp_path / "clients", partitions)
    simulated, ask = asking(config, {"partition-id": 0}), relay()
    for server_round in (1, 2, 3):
        request = request_of(
            server_round, downlink, uplink_codec=uplink, dct_frequencies=frequencies
        )
        replies = [asked(request).content["arrays"] for asked in (ask, simulated)]
        first, second = (reply["sanitized-gradient"].numpy() for reply in replies)
        assert first.dtype == second.dtype
        assert first.tobytes() == second.tobytes()


def test_refusals_arrive_by_name_and_code(relay):
    ask = relay()
    for content, kind, refusal in [
        (request_of(1, noise_stddev=1.0), TRAIN, RequestExceedsPolicy),
        (request_of(0), TRAIN, MalformedInput),
        (RecordDict(), TRAIN, MalformedInput),
        (request_of(1), UPDATE, MalformedInput),
    ]:
        reply = ask(content, kind)
        assert reply.error.code == refusal.code
        assert reply.error.reason.startswith(f"{refusal('').name}: ")
    lists = request_of(1)
    lists["config"]["server-round"] = [1]  # no frame can carry it
    assert ask(lists).error.code == MalformedInput.code


def test_without_a_guard_the_server_is_told_to_ask_again(relay, caplog):
    ask = relay(dead=True)
    for content, kind in [(request_of(1), TRAIN), (RecordDict(), REGISTER)]:
        reply = ask(content, kind)
        assert reply.error.code == GUARD_UNREACHABLE
        reason = "GUARD_UNREACHABLE: no guard answers on the device; ask again later"
        assert reply.error.reason == reason
    assert "guard.sock" in caplog.text


def test_a_guard_that_fails_is_told_without_its_reason(relay, monkeypatch):
    def fail(*arguments):
        raise ZeroDivisionError("the writer has 17 images of a 3")

    ask = relay()
    monkeypatch.setattr("fed_gswgan.device.guard.check_request", fail)
    reply = ask(request_of(1))
    assert reply.error.code == CLIENT_FAILED
    assert reply.error.reason == "client failed; see its own log"
