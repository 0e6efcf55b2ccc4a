"""What a device still misses before its first round: each check by itself, with what to do."""

import os
import stat
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from fed_gswgan.data.image_folder import read_own_images
from fed_gswgan.device.client_folder import LEDGER
from fed_gswgan.device.device_folder import POLICY, SETTINGS, socket_path
from fed_gswgan.device.device_settings import DeviceSettings, read_settings
from fed_gswgan.device.guard_socket import LONGEST_PATH_BYTES
from fed_gswgan.device.server_certificate import check_server_certificate
from fed_gswgan.device.tested_versions import BUILD_YEAR, TESTED
from fed_gswgan.device.training_trial import try_training
from fed_gswgan.privacy.ledger import Ledger
from fed_gswgan.privacy.ledger_head import head_path
from fed_gswgan.privacy.noise_source import SecureNoise
from fed_gswgan.privacy.policy import DevicePolicy, read_policy
from fed_gswgan.privacy.refusals import Refusal
from fed_gswgan.privacy.selftest import require_randomness, selftest


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
        ("ledger", lambda: _check_ledger(folder)),
        ("clock", lambda: _check_clock(folder, clock())),
        ("randomness", require_randomness),
        ("sanitizer", lambda: selftest(SecureNoise())),
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
    settings = read_settings(folder / SETTINGS)
    size = len(os.fsencode(socket_path(folder, settings)))
    if size > LONGEST_PATH_BYTES:
        raise ValueError(
            f"the socket's path has {size} bytes, must have at most {LONGEST_PATH_BYTES}; set "
            f"socket = in {SETTINGS}, or move the folder"
        )


def _check_policy(folder: Path) -> None:
    read_policy(folder / POLICY)


def _check_folder(folder: Path) -> None:
    """Require that no other account can change, and none but the group pass through, the folder."""
    _require_owner(folder)
    if stat.S_IMODE(folder.stat().st_mode) & 0o067:
        raise ValueError(f"{folder}: other accounts may read or change it; chmod 710 {folder}")
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if path.is_symlink() or stat.S_ISSOCK(mode) or path == folder / SETTINGS:
            continue
        _require_owner(path)
        if stat.S_IMODE(mode) & 0o077:
            raise ValueError(f"{path}: other accounts may use it; chmod go-rwx {path}")
    for path in (folder / LEDGER, head_path(folder / LEDGER)):
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            raise ValueError(f"{path}: must be writable; chmod u+rw {path}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{folder}: must be writable; chmod u+rwx {folder}")


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
        raise ValueError(f"{path}: other accounts may read it; chmod go-rwx {path}")


def _check_ledger(folder: Path) -> None:
    _ledger(folder).releases()


def _check_clock(folder: Path, now: float) -> None:
    shown = datetime.fromtimestamp(now, UTC)
    if shown.year < BUILD_YEAR:
        raise ValueError(
            f"the clock shows {shown:%Y-%m-%d}, before the year {BUILD_YEAR} this was built in; "
            "set it (timedatectl set-ntp true)"
        )
    newest = _ledger(folder).last_second()
    if newest > now:
        raise ValueError(
            f"the clock shows {shown:%Y-%m-%d %H:%M:%S} UTC, the ledger's newest entry is of "
            f"{datetime.fromtimestamp(newest, UTC):%Y-%m-%d %H:%M:%S}; set the clock"
        )


def _ledger(folder: Path) -> Ledger:
    """Return the ledger, readable also where the policy is not."""
    settings: DeviceSettings = read_settings(folder / SETTINGS)
    return Ledger(folder / LEDGER, (settings.client_id,), DevicePolicy())


def _check_training(folder: Path) -> None:
    settings = read_settings(folder / SETTINGS)
    try_training(settings.config(), len(settings.class_names))


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
