"""Checks of a device before its first round, each by itself, with what to do."""

import os
import shlex
import socket
import ssl
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fed_gswgan.algorithms.base import ClientView, Update
from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import ClientDataset, DataSpec
from fed_gswgan.data.image_folder import read_own_images
from fed_gswgan.device.folder import (
    POLICY,
    SETTINGS,
    owners,
    read_identity,
    read_settings,
    require_fit,
    socket_path,
)
from fed_gswgan.device.roster import ROSTER, read_roster, require_roster
from fed_gswgan.privacy.ledger import HEAD, LEDGER, REPLIES, Ledger
from fed_gswgan.privacy.noise import SecureNoise
from fed_gswgan.privacy.policy import read_policy
from fed_gswgan.privacy.refusals import Refusal
from fed_gswgan.privacy.selftest import require_randomness, selftest
from fed_gswgan.secure_aggregation.keys import proven
from fed_gswgan.seeding import SeedStream

PATIENCE_SECONDS = 10.0

BUILD_YEAR = 2026  # of this version; no clock is right that shows an earlier one

# The distributions that decide whether a device understands its server and its own arithmetic:
# the version that was tested, and how many of its numbers must be the same. Of torch every
# version from 2.11 on is expected to work (``pyproject.toml``), so that only its first number is
# compared; flwr's wire protocol changes with the second.
TESTED = {
    "fed-gswgan": ("0.1.0", 3),
    "flwr": ("1.39.0", 2),
    "torch": ("2.14.1", 1),
}


class Finding(NamedTuple):
    """What one check found; ``said`` is empty where all is well."""

    name: str
    said: str


def check_device(
    folder: Path,
    root_certificates: Path | None,
    clock: Callable[[], float] = time.time,
    server: str = "",
) -> list[Finding]:
    """Try everything that a first round needs; nothing is charged and no data leaves.

    Args:
        folder: the device's.
        root_certificates: that the device knows its server by, PEM; None: not looked at.
        clock: seconds since 1970.
        server: ``HOST:PORT``, to shake hands with; empty: nobody is called.
    """
    checks: list[tuple[str, Callable[[], None]]] = [
        ("settings", lambda: _check_settings(folder)),
        ("policy", lambda: _check_policy(folder)),
        ("folder", lambda: _check_folder(folder)),
        ("data", lambda: _check_data(folder)),
        ("identity", lambda: _check_identity(folder)),
        ("roster", lambda: check_roster(folder)),
        ("ledger", lambda: _check_ledger(folder)),
        ("clock", lambda: _check_clock(folder, clock())),
        ("randomness", require_randomness),
        ("mechanism", lambda: selftest(SecureNoise())),
        ("training", lambda: _check_training(folder)),
        ("versions", _check_versions),
    ]
    if root_certificates is not None:
        checks.append(("certificate", lambda: _check_certificates(root_certificates, clock())))
        if server:
            shake_hands = partial(check_server_certificate, server, root_certificates)
            checks.append(("server", shake_hands))
    return [Finding(name, _said(check)) for name, check in checks]


def _said(check: Callable[[], None]) -> str:
    try:
        check()
    except Refusal as refusal:
        return f"{refusal.name}: {refusal}"
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
    return ""


def _check_settings(folder: Path) -> None:
    socket_path(folder, read_settings(folder / SETTINGS))


def _check_policy(folder: Path) -> None:
    require_fit(read_settings(folder / SETTINGS), read_policy(folder / POLICY))


def _check_folder(folder: Path) -> None:
    """Require that no other account can change, and none but the group pass through, the folder."""
    _require_owner(folder)
    if stat.S_IMODE(folder.stat().st_mode) & 0o067:
        raise ValueError(f"{folder}: other accounts may read or change it; {_chmod('710', folder)}")
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if path.is_symlink() or stat.S_ISSOCK(mode) or path == folder / SETTINGS:
            continue
        _require_owner(path)
        if stat.S_IMODE(mode) & 0o077:
            raise ValueError(f"{path}: other accounts may use it; {_chmod('go-rwx', path)}")
    for path in (folder / name for name in (LEDGER, HEAD, REPLIES)):
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            raise ValueError(f"{path}: must be writable; {_chmod('u+rw', path)}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{folder}: must be writable; {_chmod('u+rwx', folder)}")


def _chmod(mode: str, path: Path) -> str:
    """Return the command, as a shell takes it."""
    return shlex.join(["chmod", mode, str(path)])


def _require_owner(path: Path) -> None:
    if path.stat().st_uid != os.geteuid():
        raise ValueError(
            f"{path}: belongs to another account than this one, uid {os.geteuid()}; run the "
            "command as the account that the guard runs under, or chown it"
        )


def _check_data(folder: Path) -> None:
    settings = read_settings(folder / SETTINGS)
    path = Path(settings.data)
    read_own_images(path, settings.class_names)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ValueError(f"{path}: other accounts may read it; {_chmod('go-rwx', path)}")


def _check_identity(folder: Path) -> None:
    """Require a key that proves to a server whose it is."""
    challenge = os.urandom(32)
    proven(read_identity(folder).prove(challenge), challenge)


def check_roster(folder: Path) -> None:
    """Require a roster that some cohort could be answered of, where the policy needs one.

    Raises:
        OSError, ValueError: there is none, or why every cohort would be refused.
    """
    policy = read_policy(folder / POLICY)
    if "secure-aggregation" in policy.trust:
        if not (folder / ROSTER).exists():
            raise ValueError(
                f"{folder / ROSTER} is missing, and trust has secure-aggregation; fed-gswgan "
                "device roster add"
            )
        require_roster(read_roster(folder / ROSTER), policy, read_identity(folder).public)


def _check_ledger(folder: Path) -> None:
    """Require whole files, and the owner's counter, if there is one, where they end."""
    with _ledger(folder) as ledger:
        ledger.verify()
        try:
            policy = read_policy(folder / POLICY)
        except (OSError, ValueError):
            return  # a finding of its own
        ledger.require_newest(policy)


def _check_clock(folder: Path, now: float) -> None:
    shown = datetime.fromtimestamp(now, UTC)
    if shown.year < BUILD_YEAR:
        raise ValueError(
            f"the clock shows {shown:%Y-%m-%d}, before the year {BUILD_YEAR} this was built in; "
            "set it (timedatectl set-ntp true)"
        )
    with _ledger(folder) as ledger:
        newest = max((line.unix_seconds for line in ledger.lines()), default=0.0)
    if newest > now:
        raise ValueError(
            f"the clock shows {shown:%Y-%m-%d %H:%M:%S} UTC, the ledger's newest entry is of "
            f"{datetime.fromtimestamp(newest, UTC):%Y-%m-%d %H:%M:%S}; set the clock"
        )


def _ledger(folder: Path) -> Ledger:
    return Ledger(folder, owners(read_settings(folder / SETTINGS)))


def _check_training(folder: Path) -> None:
    settings = read_settings(folder / SETTINGS)
    try_training(settings.config(), settings.spec)


@dataclass(frozen=True)
class _Trial:
    """A request of a server that has not trained."""

    tensors: Mapping[str, np.ndarray]
    scalars: Mapping[str, int | float | str]
    server_round: int = 1


def try_training(config: Config, spec: DataSpec) -> None:
    """Answer a first round with blank images, and throw the answer away.

    A round in which computing fails is answered with noise alone, and charged like any other. So
    what would fail for everybody's data, a missing library or no room for temporary files, has to
    come out earlier.

    Raises:
        ValueError: that failed, and why.
    """
    steps = ("critic_steps", "warm_start_steps")
    fewer = {name: 1 for name in steps if getattr(config.own, name, 0)}
    shorter = Config(config.shared, config.algorithm, config.own.model_copy(update=fewer))
    try:
        trial_update(shorter, spec)
    except Exception as error:
        raise ValueError(
            f"a round cannot be computed on this machine: {type(error).__name__}: {error}; until "
            "that is mended every round would be charged and answered with noise alone"
        ) from error


def trial_update(
    config: Config, spec: DataSpec, begin: Callable[[], None] = lambda: None
) -> Update:
    """Compute a client's first update, of a blank image of each class.

    Args:
        config: of a run.
        spec: of its data set.
        begin: called before the client's part begins.
    """
    labels = np.arange(spec.num_classes)
    images = np.zeros((len(labels), *spec.image_shape), np.float32)
    blank = ClientDataset(("blank",), images, labels)
    query = config.algorithm.Server(config.own, spec, SeedStream(0), 1).request(1)
    client = config.algorithm.Client(config.own, spec)
    trial = _Trial(query.tensors, query.scalars)
    client.check(trial)
    begin()
    return client.update(trial, ClientView("blank", ("blank",), lambda: blank, SeedStream(0)))


def _check_versions() -> None:
    if wrong := list(_other_versions()):
        raise ValueError("; ".join(wrong))


def _other_versions() -> Iterator[str]:
    for name, (tested, compared) in TESTED.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            yield f"{name} is not installed; pip install --constraint constraints.txt ."
            continue
        if found.split("+")[0].split(".")[:compared] != tested.split(".")[:compared]:
            yield f"{name} {found} is not the tested {tested}; pip install {name}=={tested}"


def _check_certificates(path: Path, now: float) -> None:
    from cryptography import x509

    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: must hold certificates in PEM ({error})") from error
    moment = datetime.fromtimestamp(now, UTC)
    for certificate in certificates:
        first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not first <= moment <= last:
            raise ValueError(
                f"{path}: {certificate.subject.rfc4514_string()} is valid from {first:%Y-%m-%d} to "
                f"{last:%Y-%m-%d}, today is {moment:%Y-%m-%d}; get a new one from the server's "
                "operator, or set the clock"
            )


def check_server_certificate(server: str, root_certificates: Path) -> None:
    """Shake hands with the server and hang up; nothing else is sent.

    Args:
        server: ``HOST:PORT`` of the SuperLink, as its SuperNodes are told.
        root_certificates: that the device knows the server by, PEM.

    Raises:
        OSError, ValueError: it is not there, speaks no TLS, or shows a certificate for another
            name or of another authority.
    """
    host, _, port = server.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")  # of an address of IPv6
    if not host or not port.isdigit():
        raise ValueError(f"server={server} must be HOST:PORT, such as server.example:9092")
    context = ssl.create_default_context(cafile=root_certificates)
    context.set_alpn_protocols(["h2"])  # gRPC's
    try:
        with (
            socket.create_connection((host, int(port)), PATIENCE_SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return
    except ssl.SSLCertVerificationError as error:
        raise ValueError(
            f"{server}: its certificate is not to be trusted ({error.verify_message}); is "
            f"{root_certificates} the one that its operator sent?"
        ) from error
    except OSError as error:
        raise ValueError(
            f"{server}: no answer over TLS ({error}); is it up, and reachable?"
        ) from error
