"""A real guard over a folder, and what a stranger reads in that folder afterwards.

The ledger is read and added up without any of the product's code, in exact fractions: a mistake
there is not made here again.
"""

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr

from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import ClientDataset
from fed_gswgan.device.guard import Guard
from fed_gswgan.device.private_client import PrivateClient
from fed_gswgan.privacy.ledger import Ledger
from fed_gswgan.privacy.policy import DevicePolicy

USERS = ("f0001",)
NUM_CLASSES = 3
CONFIG = Config.from_run_config({"critic-width": 4, "critic-steps": 1})


class WatchedShard:
    """A shard that counts how often anything is read from it."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        images = random.random((8, 1, 28, 28), dtype=np.float32)
        self._shard = ClientDataset(USERS, images, np.arange(8, dtype=np.int64) % NUM_CLASSES)
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        self.reads += 1
        return getattr(self._shard, name)


class AttackedDevice:
    """A guard with secure noise, whose folder gets its ledger the first time.

    Attributes:
        opened: how often the guard opened the data.
    """

    def __init__(self, folder: Path, policy: DevicePolicy) -> None:
        if not folder.exists():
            folder.mkdir()
            Ledger.create(folder / "ledger.jsonl", USERS)
        self.folder, self.policy, self.opened = folder, policy, 0
        self._squared_mu = Fraction(0)
        self._shard = WatchedShard()
        self._charges: list[dict[str, Any]] = []
        self._read_bytes = 0
        client = PrivateClient(
            "client-00000", USERS, self._open_shard, NUM_CLASSES, CONFIG, policy, folder
        )
        self.guard = Guard(client)

    def data_reads(self) -> int:
        """Return how often the data was opened or anything read from it."""
        return self.opened + self._shard.reads

    def charges(self) -> list[dict[str, Any]]:
        """Return the events in the ledger, read from the file; each line is looked at once."""
        path = self.folder / "ledger.jsonl"
        if path.stat().st_size > self._read_bytes:
            with open(path, "rb") as ledger:
                ledger.seek(self._read_bytes)
                news = ledger.read()
            assert news.endswith(b"\n")
            self._read_bytes += len(news)
            entries = [json.loads(line)["entry"] for line in news.splitlines()]
            events = [entry["event"] for entry in entries if "event" in entry]
            self._charges += events
            self._squared_mu += sum(map(_squared_mu, events), Fraction(0))
        return self._charges

    def squared_mu(self) -> Fraction:
        """Return mu^2 of everything in the ledger."""
        self.charges()
        return self._squared_mu

    def share_of_delta(self) -> float:
        """Return delta at max-epsilon of everything in the ledger, over the policy's: at most 1.

        Source: Balle and Wang, arXiv 1805.06530, theorem 8, with mu = sensitivity / noise.
        """
        mu, epsilon = math.sqrt(self.squared_mu()), self.policy.max_epsilon
        if mu == 0.0:
            return 0.0
        inside, outside = ndtr(mu / 2 - epsilon / mu), ndtr(-mu / 2 - epsilon / mu)
        return float(inside - math.exp(epsilon) * outside) / self.policy.delta

    def files(self) -> dict[str, bytes]:
        """Return everything that lies in the folder."""
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}

    def _open_shard(self) -> Any:
        self.opened += 1
        return self._shard


def _squared_mu(event: dict[str, Any]) -> Fraction:
    """Return mu^2 of a release under ``replace-one``: one user moves each bounded part by 2 C."""
    parts = event["samples"] if event["clipping"] == "sample" else 1
    return 4 * parts / Fraction(event["noise_stddev"]) ** 2
