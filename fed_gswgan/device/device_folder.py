"""A device's own folder: made once by its owner, opened by the guard's process.

``device.toml``, ``policy.toml``, the ledger and its head, the critics, ``failures.log``,
``guard.sock``. The folder can be passed through by its group, so that a relay reaches the socket;
everything in it but the socket is its owner's alone.
"""

import os
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from fed_gswgan.data.client_dataset import ClientDataset
from fed_gswgan.data.image_folder import read_own_images
from fed_gswgan.device.client_folder import LEDGER
from fed_gswgan.device.device_settings import SOCKET, DeviceSettings, read_settings
from fed_gswgan.device.guard import Guard
from fed_gswgan.device.private_client import PrivateClient
from fed_gswgan.device.update_guard import UpdateGuard
from fed_gswgan.flat_table import to_table, toml_value
from fed_gswgan.privacy.durable_file import replace_durably
from fed_gswgan.privacy.ledger import Ledger
from fed_gswgan.privacy.noise_source import NoiseSource, SecureNoise
from fed_gswgan.privacy.policy import DevicePolicy, read_policy

SETTINGS = "device.toml"
POLICY = "policy.toml"
FOLDER_MODE = 0o710

# What an owner who names no policy starts from; the budget is small on purpose.
# Participations are bounded too: with enough noise epsilon hardly bounds how long a ledger grows.
CAREFUL = DevicePolicy(max_epsilon=10.0, max_participations=100_000, clipping="message")


class OpenDevice(NamedTuple):
    """A device whose ledger was read and believed."""

    settings: DeviceSettings
    policy: DevicePolicy
    guard: Guard
    update_guard: UpdateGuard
    socket: Path


def create_device(folder: Path, settings: DeviceSettings, policy_file: Path | None) -> None:
    """Make a device's folder with an empty ledger, once.

    Args:
        folder: made if it is missing.
        settings: written to ``device.toml``; without a seed it gets one.
        policy_file: copied; None: a careful policy is written, for its owner to change.

    Raises:
        FileExistsError: a device, or what is left of one, is there already.
        OSError, ValueError: the policy cannot be read or is none.
    """
    if policy_file is None:
        policy_text = "".join(f"{k} = {toml_value(v)}\n" for k, v in to_table(CAREFUL).items())
    else:
        read_policy(policy_file)
        policy_text = policy_file.read_text()
    seeded = {"seed": secrets.randbits(62)} | dict(settings.training)
    written = replace(settings, training=seeded)
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, FOLDER_MODE)
    for name in (SETTINGS, POLICY):
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name}: there is a device already; it stays as it is")
    Ledger.create(folder / LEDGER, (settings.client_id,))
    replace_durably(folder / POLICY, policy_text.encode())
    replace_durably(folder / SETTINGS, written.to_toml().encode())


def open_device(
    folder: Path,
    noise_source: Callable[[int], NoiseSource] = lambda server_round: SecureNoise(),
) -> OpenDevice:
    """Read settings, policy and ledger and return the guards; no data is read.

    No file and no environment variable replaces the noise: only code that builds a guard can.

    Raises:
        OSError, ValueError: settings or policy cannot be read.
        LedgerUnavailable: the ledger is missing, damaged, or another client's.
    """
    settings, policy = read_settings(folder / SETTINGS), read_policy(folder / POLICY)
    users = (settings.client_id,)
    Ledger(folder / LEDGER, users, policy).releases()

    def open_shard() -> ClientDataset:
        images = read_own_images(Path(settings.data), settings.class_names)
        return ClientDataset(users, images.images, images.labels)

    classes, config = len(settings.class_names), settings.config()
    client = PrivateClient(settings.client_id, users, open_shard, classes, config, policy, folder)
    return OpenDevice(
        settings=settings,
        policy=policy,
        guard=Guard(client, noise_source),
        update_guard=UpdateGuard(client),
        socket=socket_path(folder, settings),
    )


def socket_path(folder: Path, settings: DeviceSettings) -> Path:
    """Return where the guard listens."""
    return Path(settings.socket) if settings.socket else folder.absolute() / SOCKET
