import importlib.metadata
import os
import secrets
import time
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fed_gswgan.device import device_check
from fed_gswgan.device.device_check import check_device
from fed_gswgan.device.device_folder import open_device
from fed_gswgan.device.tested_versions import BUILD_YEAR, TESTED
from tests.fed_gswgan.device.served_device import make_device, train_request

ROOT = Path(__file__).parents[3]
NAMES = {
    "settings", "policy", "folder", "data", "ledger", "clock", "randomness", "sanitizer",
    "training", "versions",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return make_device(tmp_path / "device")


def failing(folder, certificates=None, clock=time.time):
    return {f.name: f.said for f in check_device(folder, certificates, clock) if f.said}


def test_a_device_as_it_was_made_misses_nothing_and_checking_leaves_no_trace(folder):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert {finding.name for finding in check_device(folder, None)} == NAMES
    assert failing(folder) == {}
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def edit(name, text):
    return lambda folder: (folder / name).write_text(text)


ALL_OF_THE_SETTINGS = {"settings", "data", "ledger", "clock", "training"}
DAMAGE = {
    "no settings": (ALL_OF_THE_SETTINGS, lambda f: (f / "device.toml").unlink()),
    "settings that are none": (ALL_OF_THE_SETTINGS, edit("device.toml", "[")),
    "no policy": ({"policy"}, lambda f: (f / "policy.toml").unlink()),
    "a policy without a budget": ({"policy"}, edit("policy.toml", "max-samples = 3\n")),
    "a policy with another limit": ({"policy"}, edit("policy.toml", "max-epsilon=1\nx=1\n")),
    "no data": ({"data"}, lambda f: (f.parent / "digits.npz").unlink()),
    "data that is none": ({"data"}, lambda f: (f.parent / "digits.npz").write_bytes(b"x")),
    "data for everybody": ({"data"}, lambda f: (f.parent / "digits.npz").chmod(0o644)),
    "a folder for everybody": ({"folder"}, lambda f: f.chmod(0o755)),
    "a folder that the group writes to": ({"folder"}, lambda f: f.chmod(0o770)),
    "a ledger for everybody": ({"folder"}, lambda f: (f / "ledger.jsonl").chmod(0o644)),
    "no ledger": ({"ledger", "clock"}, lambda f: (f / "ledger.jsonl").unlink()),
    "a ledger without its head": ({"ledger", "clock"}, lambda f: (f / "ledger.head").unlink()),
    "a ledger that was edited": ({"ledger", "clock"}, edit("ledger.jsonl", "{}\n")),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_each_thing_that_is_missing_is_found_by_its_name_and_the_rest_is_still_checked(
    folder, name
):
    expected, damage = DAMAGE[name]
    damage(folder)
    found = failing(folder)
    assert set(found) == expected
    assert all("\n" not in said for said in found.values())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_a_file_of_another_account_is_found(folder):
    os.chown(folder / "ledger.jsonl", 65534, 65534)
    assert "belongs to another account" in failing(folder)["folder"]


def test_a_clock_before_the_build_or_the_newest_entry_is_found(folder):
    long_ago = datetime(BUILD_YEAR - 1, 12, 31, tzinfo=UTC).timestamp()
    assert "set it (timedatectl" in failing(folder, clock=lambda: long_ago)["clock"]
    open_device(folder).guard.answer(train_request())
    assert failing(folder) == {}
    assert "newest entry" in failing(folder, clock=lambda: time.time() - 60)["clock"]


def certificate(path, first_day, last_day):
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fed-gswgan test")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=first_day))
        .not_valid_after(now + timedelta(days=last_day))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path.write_bytes(path.read_bytes() if path.exists() else b"")
    with open(path, "ab") as file:
        file.write(made.public_bytes(serialization.Encoding.PEM))
    return path


def test_certificates_are_read_and_their_days_looked_at(folder, tmp_path):
    good = certificate(tmp_path / "good.pem", -1, 10)
    assert failing(folder, good) == {}
    assert "certificate" in {finding.name for finding in check_device(folder, good)}
    for first, last in ((-10, -1), (1, 10)):
        other = certificate(tmp_path / f"{first}.pem", first, last)
        assert "fed-gswgan test is valid from" in failing(folder, other)["certificate"]
    certificate(good, -10, -1)  # one bad among good ones
    assert set(failing(folder, good)) == {"certificate"}
    (tmp_path / "none.pem").write_text("-----BEGIN")
    assert "must hold certificates" in failing(folder, tmp_path / "none.pem")["certificate"]
    assert "No such file" in failing(folder, tmp_path / "missing.pem")["certificate"]


@pytest.mark.parametrize(
    ("name", "version", "good"),
    [
        ("flwr", "1.39.7", True), ("flwr", "1.40.0", False), ("flwr", "1.38.0", False),
        ("torch", "2.15.0+cpu", True), ("torch", "3.0.0", False), ("fed-gswgan", "0.1.1", False),
        ("torch", None, False),
    ],
)  # fmt: skip
def test_other_versions_than_the_tested_are_found(folder, monkeypatch, name, version, good):
    def found(asked):
        if asked != name:
            return TESTED[asked][0]
        if version is None:
            raise importlib.metadata.PackageNotFoundError(asked)
        return version

    monkeypatch.setattr(device_check, "version", found)
    said = failing(folder).get("versions", "")
    assert (said == "") is good
    assert good or (name in said and "pip install" in said)


def test_the_tested_versions_are_those_of_this_checkout():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )  # fmt: skip
    assert TESTED["fed-gswgan"][0] == project["version"]
    assert {name: TESTED[name][0] for name in ("flwr", "torch")} == {
        name: pinned[name] for name in ("flwr", "torch")
    }


def test_a_system_without_randomness_is_found(folder, monkeypatch):
    def none(count):
        raise OSError("no entropy")

    monkeypatch.setattr(secrets, "token_bytes", none)
    assert set(failing(folder)) == {"randomness", "sanitizer"}
