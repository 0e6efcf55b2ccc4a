"""A device that a test makes: ten faint drawings of each digit, and a narrow critic."""

import numpy as np
import pytest

from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.device.folder import DeviceSettings, create_device
from fed_gswgan.seeding import SeedStream
from fed_gswgan.wire.messages import Request

TRAINING = {"seed": 3, "critic": "mlp", "batch-size": 4, "critic-width": 8, "critic-steps": 1}


@pytest.fixture
def make_device(tmp_path):
    """Return a function that makes a device's folder, with its data and policy beside it."""

    def make(name="device", policy="max-epsilon = 100.0\nanswer-seconds = 0.0\n", **settings):
        data, policy_file = tmp_path / "digits.npz", tmp_path / "owners-policy.toml"
        if not data.exists():
            pixels = np.random.default_rng(0).integers(0, 100, (20, 28, 28), np.uint8)
            np.savez(data, images=pixels, labels=np.arange(20) % 10)
            data.chmod(0o600)
        policy_file.write_text(policy)
        given = {"name": "alice", "data": str(data), "training": TRAINING} | settings
        create_device(tmp_path / name, DeviceSettings(**given), policy_file)
        return tmp_path / name

    return make


@pytest.fixture(scope="session")
def first_request():
    """Return a function that returns the request of a round of a server that has not trained."""
    config = Config.from_table({**TRAINING, "noise-stddev": 2.14})
    spec = DataSpec((1, 28, 28), 10)
    server = config.algorithm.Server(config.own, spec, SeedStream(0), 9)

    def request(server_round=1):
        query = server.request(server_round)
        return Request(
            experiment_id="e",
            server_round=server_round,
            algorithm="gs-wgan",
            event=config.event(spec),
            tensors=query.tensors,
            scalars=query.scalars,
        )

    return request
