"""``fed-gswgan device``: what the owner of a device does: make it, check it, let it serve."""

import argparse
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

from fed_gswgan.commands.action import add_action
from fed_gswgan.flat_table import Value


def add_parser(commands: Any) -> None:
    """Add the commands and their options."""
    device = commands.add_parser("device", help="the guard that a device runs beside its data")
    actions = device.add_subparsers(required=True, metavar="COMMAND")
    action = partial(add_action, actions, subject="folder", metavar="DIR")

    made = action("init", init, "make a device's folder, with an empty ledger, once")
    made.add_argument("--client-id", required=True, metavar="ID")
    made.add_argument(
        "--data",
        required=True,
        type=Path,
        metavar="PATH",
        help="a folder of CLASS/*.png, or a file .npz, .h5 or .hdf5",
    )
    made.add_argument(
        "--policy", type=Path, metavar="FILE", help="the owner's limits; default: careful ones"
    )
    made.add_argument(
        "--classes",
        default="digits",
        help="of the run, in the order of the labels: digits, letters, all, merged, or names "
        "with commas between; default digits",
    )
    made.add_argument(
        "--settings",
        type=Path,
        metavar="FILE",
        help="a run's settings, TOML; those of the critic are taken, the others are the server's",
    )
    made.add_argument("--socket", type=Path, metavar="PATH", help="default DIR/guard.sock")

    checked = action("check", check, "what is missing before the first round")
    checked.add_argument(
        "--root-certificates", type=Path, metavar="FILE", help="that the server is known by, PEM"
    )
    checked.add_argument(
        "--server", default="", metavar="HOST:PORT", help="shake hands, with --root-certificates"
    )
    checked.set_defaults(render=_findings, verdict=lambda result: all(map(_good, result["checks"])))

    served = action("serve", serve, "answer relays until SIGTERM")
    served.set_defaults(render=lambda result: "stopped")


def init(options: argparse.Namespace) -> dict[str, Any]:
    """Make the folder; FileExistsError if a device is there already."""
    from fed_gswgan.config import CLASS_SETS
    from fed_gswgan.device.device_folder import create_device, socket_path
    from fed_gswgan.device.device_settings import DeviceSettings, device_share

    run_config: dict[str, Value] = {}
    if options.settings:
        run_config = tomllib.loads(options.settings.read_text())
    classes = options.classes
    settings = DeviceSettings(
        client_id=options.client_id,
        data=str(options.data.absolute()),
        classes=classes if classes in CLASS_SETS else tuple(classes.split(",")),
        training=device_share(run_config),
        socket=str(options.socket.absolute()) if options.socket else "",
    )
    create_device(options.folder, settings, options.policy)
    return {
        "device": str(options.folder),
        "client_id": options.client_id,
        "socket": str(socket_path(options.folder, settings)),
        "next": f"fed-gswgan device check {options.folder}",
    }


def check(options: argparse.Namespace) -> dict[str, Any]:
    """Return what each check found."""
    from fed_gswgan.device.device_check import check_device

    if options.server and not options.root_certificates:
        raise ValueError(f"server={options.server} needs --root-certificates, to know it by")
    findings = check_device(options.folder, options.root_certificates, server=options.server)
    return {
        "device": str(options.folder),
        "checks": [{"name": name, "ok": not said, "said": said} for name, said in findings],
    }


def serve(options: argparse.Namespace) -> dict[str, Any]:
    """Answer at the device's socket; a ledger that cannot be believed ends it at once."""
    from fed_gswgan.device.device_folder import open_device
    from fed_gswgan.device.serve import log_to_standard_error, serve_device

    log_to_standard_error()
    serve_device(options.folder, open_device(options.folder))
    return {"device": str(options.folder)}


def _good(finding: dict[str, Any]) -> bool:
    return bool(finding["ok"])


def _findings(result: dict[str, Any]) -> str:
    return "\n".join(
        f"ok    {finding['name']}"
        if finding["ok"]
        else f"FAIL  {finding['name']}: {finding['said']}"
        for finding in result["checks"]
    )
