"""The guard's process: opens a device, listens at its socket, ends when it is told to."""

import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.device.device_folder import OpenDevice
from fed_gswgan.device.guard_desk import GuardDesk, largest_request_bytes
from fed_gswgan.device.guard_server import GuardServer
from fed_gswgan.device.training_trial import try_training
from fed_gswgan.models.registry import build_critic, build_generator, to_state_vector
from fed_gswgan.privacy.durable_file import held

SERVING = "serving.lock"


def serve_device(
    folder: Path, device: OpenDevice, ready: Callable[[str], None] = lambda line: print(line)
) -> None:
    """Answer at the device's socket until SIGTERM or Ctrl-C.

    Args:
        folder: the device's.
        device: opened from it.
        ready: is told, in one line, once relays may connect.

    Raises:
        LedgerLocked: another process serves this device.
        OSError, ValueError: the socket cannot be made, or no critic can be trained here.
    """
    desk = GuardDesk(device.settings.client_id, device.policy, device.guard, device.update_guard)
    largest = largest_request_bytes(device.policy, _weights(device))
    with held(folder / SERVING, patience_seconds=0.0):
        try_training(device.settings.config(), len(device.settings.class_names))
        server = GuardServer(device.socket, desk.answer, largest)
        for sent in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sent, lambda number, frame: server.stop())
        ready(f"serving {device.settings.client_id} at {device.socket}")
        sys.stdout.flush()
        server.serve()


def log_to_standard_error() -> None:
    """Send what the guard says, refusals among it, to standard error, with the time."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("fed_gswgan")
    logger.setLevel(logging.INFO)
    logger.handlers, logger.propagate = [handler], False


def _weights(device: OpenDevice) -> int:
    """Return the size of the networks that FedAvg-GAN would send; 0 where it may not."""
    if not device.policy.trusted_server:
        return 0
    config = device.settings.config()
    spec = DataSpec(IMAGE_SHAPE, len(device.settings.class_names))
    networks = (
        build_generator(config.generator, spec, seed=0),
        build_critic(config.critic, spec, seed=0),
    )
    return sum(to_state_vector(network).size for network in networks)
