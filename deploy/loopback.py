"""A server and its devices as real processes on one machine: ``python -m deploy.loopback``.

Makes certificates, keys and devices with real digits, starts a SuperLink and SuperNodes with TLS
and node authentication, restarts any that ends, runs the app to its end, and stops everything.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from deploy.federation import DEVICE, Federation, Security, running
from deploy.keep_running import RunStalled, keep_running
from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import ClientDataset, spec_of
from fed_gswgan.data.partition import load_partition, partitions_of
from fed_gswgan.data.registry import open_source
from fed_gswgan.device.folder import (
    DeviceSettings,
    create_device,
    device_share,
    read_identity,
)
from fed_gswgan.device.roster import RosterFile
from fed_gswgan.reporting.logs import log_to
from fed_gswgan.reporting.run_folder import SUMMARY, WIRE_BYTES, replace_json
from fed_gswgan.settings import Value, read_toml, toml_value

IMAGES, POLICY = "images", "policy.toml"


def make_devices(nodes: Path, names: Sequence[str], settings: Mapping[str, Value]) -> None:
    """Make ``nodes/NAME`` with images (PNG), policy and device folder, unless it exists.

    Does what an owner does with ``fed-gswgan device init``. The policy allows exactly the run; its
    ``max-epsilon`` must be finite. Under secure aggregation each has all of them on its roster.
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
            name=name,
            data=str(folder / IMAGES),
            classes=tuple(source.class_names),
            training=device_share(settings),
        )
        create_device(folder / DEVICE, device, folder / POLICY)
    if config.shared.masked:
        install_rosters([nodes / name / DEVICE for name in names])


def install_rosters(devices: Sequence[Path]) -> None:
    """Give each device a roster of all, a person each: ``fed-gswgan device roster add``."""
    people = {read_identity(folder).public: folder.parent.name for folder in devices}
    roster = RosterFile("deploy.loopback, on this machine", people)
    for folder in devices:
        roster.install(folder)


def write_images(folder: Path, images: ClientDataset, class_names: Sequence[str]) -> None:
    """Write ``folder/CLASS/NUMBER.png``, dark ink on light paper."""
    for number, (image_CHW, label) in enumerate(zip(images.images, images.labels, strict=True)):
        path = folder / class_names[label] / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        gray_HW = np.round((1 - image_CHW[0]) * 255).astype(np.uint8)
        Image.fromarray(gray_HW).save(path)


logger = logging.getLogger("deploy.loopback")  # also when started with -m

CONFIG = Path(__file__).with_name("loopback.toml")
WIRE_BYTES_SECONDS = 5.0  # between two times that they are written down


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return the exit status: 0 finished, 1 failed, 2 bad settings, 130 interrupted."""
    options = _parser().parse_args(arguments)
    log_to(logging.StreamHandler())
    try:
        security = Security(
            tls=not options.insecure, authenticated=not (options.no_auth or options.insecure)
        )
        settings = settings_of(options.config, options.nodes, options.rounds)
    except (OSError, ValueError) as error:
        logger.error("error: %s", error)
        return 2
    names = [f"device-{number}" for number in range(options.nodes)]
    try:
        make_devices(options.output / "nodes", names, settings)
        with running(options.output, names, security) as federation:
            run(federation, settings)
    except (RunStalled, RuntimeError, OSError, ValueError) as error:
        logger.error("error: %s", error)
        return 1
    except KeyboardInterrupt:
        logger.error("stopped; the same command goes on with the run")
        return 130
    logger.info("finished: %s", federation.run_folder / SUMMARY)
    return 0


def settings_of(path: Path, nodes: int, rounds: int | None) -> dict[str, Value]:
    """Return the settings of a run with so many devices, checked.

    Raises:
        ValueError: one of them breaks its rule.
    """
    settings: dict[str, Value] = read_toml(path)
    settings |= {"max-clients": nodes, "cohort-size": nodes}
    if rounds is not None:
        settings["rounds"] = rounds
    Config.from_table(settings)
    return settings


def run(federation: Federation, settings: dict[str, Value]) -> None:
    """Run the app to its end, and write down the bytes that cross the relay."""
    path, relay = federation.run_folder / WIRE_BYTES, federation.relay
    before = json.loads(path.read_text()) if path.exists() else {"uplink": 0, "downlink": 0}
    written_at = time.monotonic()

    def write_bytes() -> None:
        uplink, downlink = before["uplink"], before["downlink"]
        counted = (uplink + relay.uplink_bytes, downlink + relay.downlink_bytes)
        replace_json(path, dict(zip(("uplink", "downlink"), counted, strict=True)))

    def watch() -> None:
        nonlocal written_at
        for name in federation.restart_ended():
            logger.warning("%s had ended and was started again", name)
        if path.parent.exists() and time.monotonic() - written_at > WIRE_BYTES_SECONDS:
            write_bytes()
            written_at = time.monotonic()

    keep_running(federation.submit, federation.run_folder, settings, watch)
    write_bytes()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.loopback", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="all state")
    parser.add_argument("--nodes", type=int, default=3, help="devices; default 3")
    parser.add_argument("--rounds", type=int, help="default: those of the settings")
    parser.add_argument("--config", type=Path, default=CONFIG, help="TOML file of settings")
    parser.add_argument("--insecure", action="store_true", help="no TLS and no authentication")
    parser.add_argument("--no-auth", action="store_true", help="TLS, but any node may connect")
    return parser


if __name__ == "__main__":
    sys.exit(main())
