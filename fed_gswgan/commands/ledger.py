"""``fed-gswgan ledger``: what an owner does with the ledger of a device."""

import argparse
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from fed_gswgan.commands.action import add_action
from fed_gswgan.privacy.durable_file import sync_folder
from fed_gswgan.privacy.events import NeighboringRelation, compose
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import Ledger
from fed_gswgan.privacy.ledger_file import LedgerFile
from fed_gswgan.privacy.ledger_head import head_path
from fed_gswgan.privacy.policy import DevicePolicy, read_policy
from fed_gswgan.privacy.refusals import Refusal


def add_parser(commands: Any) -> None:
    """Add the commands and their options."""
    ledger = commands.add_parser("ledger", help="what left a device, and whether that is intact")
    actions = ledger.add_subparsers(required=True, metavar="COMMAND")
    action = partial(add_action, actions, subject="path", metavar="LEDGER")

    create = action("init", init, "create the ledger of these users, once")
    create.add_argument("--user", action="append", required=True, dest="users", metavar="NAME")

    shown = action("show", show, "releases and epsilon of each user")
    shown.add_argument("--policy", type=Path, metavar="FILE", help="the device's policy, TOML")
    shown.set_defaults(render=_table)
    shown.add_argument("--delta", type=float, help="without a policy; default 1e-5")
    shown.add_argument(
        "--neighboring",
        choices=[str(relation) for relation in NeighboringRelation],
        help="without a policy; default replace-one",
    )

    checked = action("verify", verify, "read every line, hash by hash, to the head")
    checked.set_defaults(verdict=lambda result: result["intact"])
    checked.add_argument(
        "--drop-incomplete-line",
        action="store_true",
        help="first cut off a last line that a power cut left incomplete; nothing was released "
        "on the strength of it",
    )

    copied = action("backup", backup, "copy ledger and head as of one moment")
    copied.add_argument("target", type=Path, help="folder that holds neither yet")


def init(options: argparse.Namespace) -> dict[str, Any]:
    """Create a ledger; FileExistsError if there is, or was, one."""
    users = tuple(options.users)
    if len(set(users)) != len(users) or not all(users):
        raise ValueError(f"user={list(users)} must be names, each given once")
    Ledger.create(options.path, users)
    return {"ledger": str(options.path), "users": list(users), "releases": 0}


def show(options: argparse.Namespace) -> dict[str, Any]:
    """Return what each user released and what it cost, beside the policy's limits."""
    policy = _policy(options)
    relation = NeighboringRelation(policy.neighboring_relation)
    ledger = Ledger(options.path, Ledger.users_of(options.path), policy)
    users = {}
    for user, releases in ledger.releases().items():
        mu = compose(releases, relation)
        users[user] = {
            "participations": releases.total(),
            "mu": mu,
            "epsilon": gaussian_epsilon(mu, policy.delta),
            "releases": [
                {"count": count, **vars(event)}
                for event, count in sorted(releases.items(), key=lambda item: -item[1])
            ],
        }
    return {
        "ledger": str(options.path),
        "trust_model": "local",
        "neighboring_relation": policy.neighboring_relation,
        "delta": policy.delta,
        "max_epsilon": policy.max_epsilon if options.policy else None,
        "max_participations": policy.max_participations or None,
        "users": users,
    }


def verify(options: argparse.Namespace) -> dict[str, Any]:
    """Read the whole ledger against its head and say whether a device would accept it."""
    drop, dropped = options.drop_incomplete_line, False
    try:
        dropped = drop and LedgerFile(options.path).drop_incomplete_line()
        users = Ledger.users_of(options.path)
        releases = Ledger(options.path, users, DevicePolicy()).releases()
    except Refusal as refusal:
        why = f"{refusal.name}: {refusal}"
        return {"ledger": str(options.path), "intact": False, "why": why}
    return {
        "ledger": str(options.path),
        "intact": True,
        "dropped_incomplete_line": dropped,
        "users": len(users),
        "releases": sum(counts.total() for counts in releases.values()),
        "not_covered": "an older copy of ledger and head together",
    }


def backup(options: argparse.Namespace) -> dict[str, Any]:
    """Copy ledger and head under the lock, after reading both."""
    options.target.mkdir(parents=True, exist_ok=True)
    for source in (options.path, head_path(options.path)):
        if (options.target / source.name).exists():
            raise FileExistsError(f"{options.target / source.name}: there is one; name another")
    with LedgerFile(options.path).locked() as file:
        for source in (options.path, head_path(options.path)):
            shutil.copy2(source, options.target)
        sync_folder(options.target)
    return {
        "ledger": str(options.target / options.path.name),
        "entries": len(file.entries),
        "warning": "put back after another reply was sent, it forgets that reply",
    }


def _table(shown: dict[str, Any]) -> str:
    lines = [
        f"{shown['ledger']}: local trust, {shown['neighboring_relation']}, delta {shown['delta']:g}"
    ]
    for user, cost in shown["users"].items():
        lines.append(
            f"{user}: {cost['participations']} participations, mu {cost['mu']:.6g}, "
            f"epsilon {cost['epsilon']:.6g}"
        )
        lines += [
            f"  {event['count']} x {event['samples']} rows, clipping {event['clipping']} to "
            f"{event['clipping_bound']:g}, noise {event['noise_stddev']:g}"
            for event in cost["releases"]
        ]
    limits = {name: shown[name] for name in ("max_epsilon", "max_participations") if shown[name]}
    return "\n".join(lines + [f"{name}: {value:g}" for name, value in limits.items()])


def _policy(options: argparse.Namespace) -> DevicePolicy:
    given = {
        "delta": options.delta,
        "neighboring_relation": options.neighboring,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if options.policy and given:
        raise ValueError(f"{', '.join(given)}: the policy says so; drop it, or drop --policy")
    return read_policy(options.policy) if options.policy else DevicePolicy(**given)
