import zlib
from dataclasses import replace

import numpy as np
import pytest

from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import ClientDataset
from fed_gswgan.device.guard import Guard
from fed_gswgan.device.private_client import PrivateClient
from fed_gswgan.device.virtual_clients import policy_of_run
from fed_gswgan.privacy.ledger import Ledger
from fed_gswgan.privacy.noise_source import named_noise_source
from fed_gswgan.seeding import SeedStream
from fed_gswgan.wire.messages import TrainRequest

NUM_CLASSES = 3
SETTINGS = {
    "critic-width": 16,
    "critic-steps": 2,
    "batch-size": 4,
    "critic-batches": 2,
    "noise-source": "seeded",
}


class AskedAsAllowed:
    """A guard whose every request asks for exactly the sanitizer that its policy allows."""

    def __init__(self, guard, policy):
        self.guard, self.policy = guard, policy

    def answer(self, request):
        return self.guard.answer(
            replace(
                request,
                clipping=self.policy.clipping,
                clipping_bound=self.policy.max_clipping_bound,
                noise_stddev=self.policy.min_noise_stddev,
            )
        )


def pixels(seed, *leading):
    return np.random.default_rng(seed).random((*leading, 1, 28, 28), dtype=np.float32)


@pytest.fixture
def make_request():
    """Build a well-formed request for four samples; each keyword replaces a field."""

    def make(server_round=1, checkpoint_round=0, seed=0, **fields):
        request = TrainRequest(
            experiment_id="experiment",
            server_round=server_round,
            checkpoint_round=checkpoint_round,
            samples_BCHW=pixels(zlib.crc32(f"{server_round} {seed}".encode()), 4),
            labels_B=np.array([0, 1, 2, 0], dtype=np.int64),
            critic_samples_NBCHW=np.empty((0, 4, 1, 28, 28), dtype=np.float32),
            critic_labels_NB=np.empty((0, 4), dtype=np.int64),
            clipping="sample",
            clipping_bound=1.0,
            noise_stddev=2.14,
        )
        return replace(request, **fields)

    return make


@pytest.fixture
def make_shard():
    """Build a small shard of random images."""

    def make(images=8, seed=0):
        labels = np.arange(images, dtype=np.int64) % NUM_CLASSES
        return ClientDataset(("f0001",), pixels(seed, images), labels)

    return make


@pytest.fixture
def make_guard(make_shard):
    """Build a guard over a folder; the folder gets its ledger the first time.

    ``limits`` are the owner's own, beside what the run's settings ask for.
    """

    def make(folder, open_shard=None, users=("f0001",), limits=None, **settings):
        if not folder.exists():
            folder.mkdir()
            Ledger.create(folder / "ledger.jsonl", users)
        table = SETTINGS | {key.replace("_", "-"): value for key, value in settings.items()}
        config = Config.from_run_config(table)
        shard = open_shard or make_shard

        def noise_source(server_round):
            stream = SeedStream(config.run.seed)
            randomness = stream.generator("noise", server_round, "client-00000")
            return named_noise_source(config.sanitizer.noise_source, randomness)

        policy = replace(policy_of_run(config), **(limits or {}))
        client = PrivateClient("client-00000", users, shard, NUM_CLASSES, config, policy, folder)
        return AskedAsAllowed(Guard(client, noise_source), policy)

    return make


@pytest.fixture
def charges():
    """Count the charges in a folder's ledger: its lines without the header."""

    def count(folder):
        return len((folder / "ledger.jsonl").read_text().splitlines()) - 1

    return count
