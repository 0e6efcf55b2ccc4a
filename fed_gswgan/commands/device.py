"""``fed-gswgan device`` and ``fed-gswgan ledger``: what the owner of a device does."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fed_gswgan.commands.output import Json, show

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="folder of the device")]

ONE_BUDGET = (
    "the policy's max-epsilon is this device's alone; another device of the same person has one of "
    "its own, and they add up: give each a share"
)

device = typer.Typer(no_args_is_help=True, help="the guard that a device runs beside its data")
roster = typer.Typer(no_args_is_help=True, help="the peers that an owner believes in")
device.add_typer(roster, name="roster")
ledger = typer.Typer(no_args_is_help=True, help="what left a device, and whether that is intact")


@device.command()
def init(
    folder: Folder,
    name: Annotated[str, typer.Option(help="of the ledger's user; no server learns it")],
    data: Annotated[
        Path, typer.Option(metavar="PATH", help="a folder of CLASS/*.png, or .npz, .h5, .hdf5")
    ],
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="the owner's limits; default: careful ones")
    ] = None,
    classes: Annotated[
        str,
        typer.Option(
            help="of the run, in the order of the labels: digits, letters, all, merged, or names "
            "with commas between"
        ),
    ] = "digits",
    settings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="settings of a run, TOML; the algorithm's are taken"),
    ] = None,
    socket: Annotated[Path | None, typer.Option(metavar="PATH", help="default DIR/guard.sock")] = (
        None
    ),
    as_json: Json = False,
) -> None:
    """Make a device's folder, with a key of its own and an empty ledger, once."""
    from fed_gswgan.device.folder import (
        CLASS_SETS,
        DeviceSettings,
        create_device,
        device_share,
        read_identity,
        socket_path,
    )
    from fed_gswgan.secure_aggregation.keys import client_id_of
    from fed_gswgan.settings import read_toml

    # The careful policy, written where none is given, allows clipping=message alone.
    run_config: dict[str, Any] = {} if policy else {"clipping": "message"}
    if settings:
        run_config = read_toml(settings)
    made = DeviceSettings.from_table(
        {
            "name": name,
            "data": str(data.absolute()),
            "classes": classes if classes in CLASS_SETS else tuple(classes.split(",")),
            "training": device_share(run_config),
            "socket": str(socket.absolute()) if socket else "",
        }
    )
    create_device(folder, made, policy)
    public = read_identity(folder).public
    found = {
        "device": str(folder),
        "client_id": client_id_of(public),
        "public_key": public.hex(),
        "socket": str(socket_path(folder, made)),
        "budget": ONE_BUDGET,
        "next": shlex.join(["fed-gswgan", "device", "check", str(folder)]),
    }
    show(found, as_json)


@device.command()
def check(
    folder: Folder,
    root_certificates: Annotated[
        Path | None, typer.Option(metavar="FILE", help="that the server is known by, PEM")
    ] = None,
    server: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="shake hands, with --root-certificates")
    ] = "",
    as_json: Json = False,
) -> None:
    """Find what is missing before the first round."""
    from fed_gswgan.device.doctor import check_device
    from fed_gswgan.device.folder import read_identity
    from fed_gswgan.secure_aggregation.keys import client_id_of

    if server and not root_certificates:
        raise ValueError(f"server={server} needs --root-certificates, to know it by")
    findings = check_device(folder, root_certificates, server=server)
    found: dict[str, Any] = {
        "device": str(folder),
        "checks": [{"name": name, "ok": not said, "said": said} for name, said in findings],
        "budget": ONE_BUDGET,
    }
    if not any(said for name, said in findings if name == "identity"):
        public = read_identity(folder).public
        found |= {"client_id": client_id_of(public), "public_key": public.hex()}
    show(found, as_json, _findings, good=not any(said for _, said in findings))


@device.command()
def serve(folder: Folder) -> None:
    """Answer relays until SIGTERM."""
    import logging

    from fed_gswgan.device import service
    from fed_gswgan.device.doctor import try_training
    from fed_gswgan.device.folder import open_device

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("fed_gswgan")
    logger.setLevel(logging.INFO)
    logger.handlers, logger.propagate = [handler], False
    opened = open_device(folder)
    opened.read_data()
    try_training(opened.settings.config(), opened.settings.spec)

    def ready() -> None:
        print(f"serving {opened.settings.name} at {opened.socket}")
        sys.stdout.flush()

    lock = folder / "serving.lock"
    service.serve(opened.socket, opened.identity.prove, opened.answer, lock, ready)
    print("stopped")


@roster.command("add")
def add_peers(
    folder: Folder,
    made: Annotated[Path, typer.Argument(metavar="FILE", help="roster that somebody made, TOML")],
    as_json: Json = False,
) -> None:
    """Install the keys of a roster beside those that the device has; counts from its next start."""
    from fed_gswgan.device.roster import add_to_roster

    add_to_roster(folder, made)
    show_roster(folder, as_json)


@roster.command("show")
def show_roster(folder: Folder, as_json: Json = False) -> None:
    """Show who made the roster, and whose devices are in it."""
    from fed_gswgan.device.folder import read_identity
    from fed_gswgan.device.roster import ROSTER, read_roster
    from fed_gswgan.secure_aggregation.keys import client_id_of

    found, own = read_roster(folder / ROSTER), read_identity(folder).public
    people: dict[str, list[dict[str, str]]] = {}
    for key, person in found.people.items():
        device = {"client_id": client_id_of(key), "public_key": key.hex()}
        people.setdefault(person, []).append(device)
    shown = {
        "device": str(folder),
        "made_by": found.made_by,
        "own_key": own.hex(),
        "own_key_is_in_it": own in found.people,
        "people": people,
    }
    show(shown, as_json, _roster)


@roster.command("verify")
def verify_roster(folder: Folder, as_json: Json = False) -> None:
    """Check that the policy could answer some cohort of the roster."""
    from fed_gswgan.device.doctor import check_roster

    found: dict[str, Any] = {"device": str(folder), "good": True}
    try:
        check_roster(folder)
    except (OSError, ValueError) as error:
        found |= {"good": False, "why": str(error)}
    show(found, as_json, good=bool(found["good"]))


@ledger.command("show")
def show_ledger(
    folder: Folder,
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="default: the device's own, if it has one")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show releases and epsilon of each user."""
    from fed_gswgan.privacy.gaussian import gaussian_epsilon
    from fed_gswgan.privacy.ledger import Ledger
    from fed_gswgan.privacy.mechanism import NeighboringRelation, compose, seen_alone
    from fed_gswgan.privacy.policy import Policy, read_policy

    path = policy or folder / "policy.toml"
    limits = read_policy(path) if policy or path.exists() else Policy()
    relation = NeighboringRelation(limits.neighboring_relation)
    with Ledger(folder) as opened:
        releases = opened.releases()
    users = {}
    for user, events in sorted(releases.items()):
        mu = compose(events, relation)
        alone = compose(seen_alone(events), relation)
        users[user] = {
            "participations": events.total(),
            "mu": mu,
            "epsilon": gaussian_epsilon(mu, limits.delta),
            "epsilon_alone": gaussian_epsilon(alone, limits.delta),
            "releases": [{"count": count, **vars(event)} for event, count in events.most_common()],
        }
    found = {
        "ledger": str(folder),
        "neighboring_relation": limits.neighboring_relation,
        "delta": limits.delta,
        "max_epsilon": limits.max_epsilon,
        "max_participations": limits.max_participations or None,
        "users": users,
    }
    show(found, as_json, _users)


@ledger.command()
def verify(folder: Folder, as_json: Json = False) -> None:
    """Check every line, hash by hash, the head, and that each reply has its line."""
    from fed_gswgan.privacy.ledger import Ledger
    from fed_gswgan.privacy.refusals import Refusal

    found: dict[str, Any] = {"ledger": str(folder), "intact": True}
    try:
        with Ledger(folder) as opened:
            found["lines"] = opened.verify()
            found["not_covered"] = "an older copy of all its files together"
    except Refusal as refusal:
        found |= {"intact": False, "why": f"{refusal.name}: {refusal}"}
    show(found, as_json, good=bool(found["intact"]))


@ledger.command()
def backup(
    folder: Folder,
    target: Annotated[Path, typer.Argument(help="folder that holds no ledger yet")],
    as_json: Json = False,
) -> None:
    """Copy ledger, head and replies as of one moment."""
    from fed_gswgan.privacy.ledger import HEAD, LEDGER, REPLIES, Ledger

    target.mkdir(parents=True, exist_ok=True)
    for name in (LEDGER, HEAD, REPLIES):
        if (target / name).exists():
            raise FileExistsError(f"{target / name}: there is one; name another folder")
    with Ledger(folder) as opened:
        lines = opened.verify()
        for name in (LEDGER, HEAD, REPLIES):
            shutil.copy2(folder / name, target)
    warning = "put back after another reply was sent, it forgets that reply"
    show({"ledger": str(target), "lines": lines, "warning": warning}, as_json)


def _findings(found: dict[str, Any]) -> str:
    checks = [
        f"ok    {check['name']}" if check["ok"] else f"FAIL  {check['name']}: {check['said']}"
        for check in found["checks"]
    ]
    about = [
        f"{name}: {value}" for name, value in found.items() if name not in ("device", "checks")
    ]
    return "\n".join(checks + about)


def _roster(found: dict[str, Any]) -> str:
    lines = [f"{found['device']}: made by {found['made_by']}"]
    for person, devices in found["people"].items():
        for one in devices:
            own = "  (this device)" if one["public_key"] == found["own_key"] else ""
            lines.append(f"{person}: {one['client_id']}  {one['public_key']}{own}")
    if not found["own_key_is_in_it"]:
        lines.append("this device's own key is not in it")
    return "\n".join(lines)


def _users(found: dict[str, Any]) -> str:
    lines = [f"{found['ledger']}: {found['neighboring_relation']}, delta {found['delta']:g}"]
    for user, cost in found["users"].items():
        lines.append(
            f"{user}: {cost['participations']} participations, mu {cost['mu']:.6g}, "
            f"epsilon {cost['epsilon']:.6g}"
            + (
                f" ({cost['epsilon_alone']:.6g} if each release were seen by itself)"
                if cost["epsilon_alone"] > cost["epsilon"]
                else ""
            )
        )
        lines += [
            f"  {event['count']} x {event['rows']} rows, clipping {event['bounded']} to "
            f"{event['clipping_bound']:g}, noise {event['noise_stddev']:g}, trust {event['trust']}"
            for event in cost["releases"]
        ]
    limits = {name: found[name] for name in ("max_epsilon", "max_participations") if found[name]}
    return "\n".join(lines + [f"{name}: {value:g}" for name, value in limits.items()])
