"""A guard with seeded noise, which no setting of a device can ask for: only a test builds one.

Usage: python -m tests.e2e.seeded_guard DEVICE SEED
"""

import logging
import sys
from pathlib import Path

from fed_gswgan.device.folder import open_device
from fed_gswgan.device.service import serve
from fed_gswgan.privacy.noise import SeededNoise
from fed_gswgan.seeding import SeedStream

if __name__ == "__main__":
    folder, seeds = Path(sys.argv[1]), SeedStream(int(sys.argv[2]))
    logging.basicConfig(level=logging.INFO)

    def noise(client_id: str, server_round: int) -> SeededNoise:
        return SeededNoise(seeds.generator("noise", server_round, client_id))

    device = open_device(folder, noise)
    lock = folder / "serving.lock"
    serve(device.socket, device.identity.prove, device.answer, lock, lambda: None)
