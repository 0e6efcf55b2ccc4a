"""Serve a device with the noise of a simulation: for tests of parity, and nothing else.

``python -m tests.fed_gswgan.device.seeded_guard DIR SEED`` is ``fed-gswgan device serve DIR`` with
the noise that a simulated client of the same id has under that seed. Nothing that is installed can
do this: whoever builds the guard in Python says where its noise comes from, and no setting does.
"""

import sys
from pathlib import Path

from fed_gswgan.device.device_folder import OpenDevice, open_device
from fed_gswgan.device.serve import log_to_standard_error, serve_device
from fed_gswgan.privacy.noise_source import SeededNoise
from fed_gswgan.seeding import SeedStream


def open_seeded(folder: Path, seed: int, client_id: str) -> OpenDevice:
    """Open a device with the noise of this seed and client."""
    stream = SeedStream(seed)
    return open_device(
        folder, lambda server_round: SeededNoise(stream.generator("noise", server_round, client_id))
    )


def main() -> None:
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    client_id = open_device(folder).settings.client_id
    log_to_standard_error()
    serve_device(folder, open_seeded(folder, seed, client_id))


if __name__ == "__main__":
    main()
