"""Makes the devices of a federation on loopback: real digits as PNG files, a policy, a ledger.

What an owner does by hand with ``fed-gswgan device init``, for each device of one machine.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import ClientDataset, spec_of
from fed_gswgan.data.partition import load_partition, partitions_of
from fed_gswgan.data.registry import open_source
from fed_gswgan.device.folder import DeviceSettings, create_device, device_share
from fed_gswgan.settings import Value, toml_value

DEVICE, IMAGES, POLICY = "device", "images", "policy.toml"


def make_devices(nodes: Path, names: Sequence[str], settings: Mapping[str, Value]) -> None:
    """Make ``nodes/NAME`` with images, policy and device folder for each name not made yet.

    Each owner allows what the run asks for and no more; its ``max-epsilon`` must be finite.
    """
    config = Config.from_table(settings)
    source = open_source(config.shared)
    config = config.with_noise(spec_of(source))
    partitions = partitions_of(source, config.shared)
    shards = [partitions.writers(number) for number in range(len(partitions))]
    for name, writers in zip(names, shards, strict=True):
        folder = nodes.absolute() / name
        if (folder / DEVICE).exists():
            continue
        write_images(folder / IMAGES, load_partition(source, writers), source.class_names)
        policy = config.policy(spec_of(source)).to_table()
        lines = [f"{limit} = {toml_value(value)}\n" for limit, value in policy.items()]
        (folder / POLICY).write_text("".join(lines))
        device = DeviceSettings(
            client_id=name,
            data=str(folder / IMAGES),
            classes=tuple(source.class_names),
            training=device_share(settings),
        )
        create_device(folder / DEVICE, device, folder / POLICY)


def write_images(folder: Path, images: ClientDataset, class_names: Sequence[str]) -> None:
    """Write ``folder/CLASS/NUMBER.png``, dark ink on light paper."""
    for number, (image_CHW, label) in enumerate(zip(images.images, images.labels, strict=True)):
        path = folder / class_names[label] / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        gray_HW = np.round((1 - image_CHW[0]) * 255).astype(np.uint8)
        Image.fromarray(gray_HW).save(path)
