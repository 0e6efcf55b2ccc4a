"""A guard with seeded noise, which no setting of a device can ask for: only a test builds one.

Usage: python -m tests.deploy.seeded_guard DEVICE SEED
"""

import sys
from pathlib import Path

from fed_gswgan.device.device_folder import open_device
from fed_gswgan.device.device_settings import read_settings
from fed_gswgan.device.serve import log_to_standard_error, serve_device
from fed_gswgan.privacy.noise_source import SeededNoise
from fed_gswgan.seeding import SeedStream

if __name__ == "__main__":
    folder, seeds = Path(sys.argv[1]), SeedStream(int(sys.argv[2]))
    client_id = read_settings(folder / "device.toml").client_id
    log_to_standard_error()
    serve_device(
        folder,
        open_device(
            folder,
            lambda server_round: SeededNoise(seeds.generator("noise", server_round, client_id)),
        ),
    )
