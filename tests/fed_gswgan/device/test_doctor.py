import importlib.metadata
import os
import secrets
import shutil
import socket
import sqlite3
import ssl
import threading
import time
import tomllib
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from deploy.certificates import make_certificates
from fed_gswgan.algorithms import gs_wgan
from fed_gswgan.device import doctor
from fed_gswgan.device.doctor import (
    BUILD_YEAR,
    TESTED,
    check_device,
    check_server_certificate,
)
from fed_gswgan.device.folder import open_device
from fed_gswgan.device.roster import ROSTER
from fed_gswgan.privacy.durable import write_durably
from fed_gswgan.privacy.ledger import LEDGER, REPLIES
from fed_gswgan.privacy.noise import SecureNoise

ROOT = Path(__file__).parents[3]
NAMES = {
    "settings", "policy", "folder", "data", "identity", "roster", "ledger", "clock", "randomness",
    "mechanism", "training", "versions",
}  # fmt: skip
DAY = 86400.0


def failing(folder, certificates=None, clock=time.time, server=""):
    found = check_device(folder, certificates, clock, server)
    return {finding.name: finding.said for finding in found if finding.said}


def files(folder):
    return {path: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


def test_a_device_as_it_was_made_misses_nothing(make_device):
    folder = make_device()
    before = files(folder)
    assert {finding.name for finding in check_device(folder, None)} == NAMES
    assert failing(folder) == {}  # what the first check left behind is no finding
    assert files(folder) == before


def edit(name, text):
    return lambda folder: (folder / name).write_text(text)


def with_roster(folder, text):
    (folder / "policy.toml").write_text(SECURE)
    write_durably(folder / ROSTER, text.encode())


def change_owners(folder):
    with sqlite3.connect(folder / LEDGER) as ledger:
        ledger.execute("UPDATE header SET owners = 'another'")


def put_counter_ahead(folder):
    program = folder.parent / "counter"
    program.write_text("#!/bin/sh\necho 7\n")
    program.chmod(0o700)
    with (folder / "policy.toml").open("a") as policy:
        policy.write(f'counter = "{program}"\n')


SECURE = """
max-epsilon = 100.0
trust = ["local", "secure-aggregation"]
min-honest = 3
max-colluding = 0
max-epsilon-alone = 1000.0
"""
STRANGERS = 'made-by = "me"\n[people]\n' + "".join(f'p{n} = ["{n:064x}"]\n' for n in range(5))
OF_THE_SETTINGS = {"settings", "policy", "data", "ledger", "clock", "training"}
DAMAGE = {
    "no settings": (OF_THE_SETTINGS, lambda f: (f / "device.toml").unlink()),
    "classes that are none": (
        OF_THE_SETTINGS, edit("device.toml", 'name="a"\ndata="/x"\nclasses="some"'),
    ),
    "no policy": ({"policy", "roster"}, lambda f: (f / "policy.toml").unlink()),
    "a policy without a budget": ({"policy", "roster"}, edit("policy.toml", "max-rows = 3\n")),
    "a policy that its own settings pass": (
        {"policy"}, edit("policy.toml", 'max-epsilon = 1.0\nclipping = "message"\n'),
    ),
    "no key": ({"identity"}, lambda f: (f / "identity.key").unlink()),
    "half a key": ({"identity"}, lambda f: (f / "identity.key").write_bytes(bytes(16))),
    "peers that are believed in, and no roster": ({"roster"}, edit("policy.toml", SECURE)),
    "a roster of strangers": (
        {"roster"}, lambda f: with_roster(f, STRANGERS),
    ),
    "a roster that is none": (
        {"roster"}, lambda f: with_roster(f, "[people]"),
    ),
    "no data": ({"data"}, lambda f: (f.parent / "digits.npz").unlink()),
    "data for everybody": ({"data"}, lambda f: (f.parent / "digits.npz").chmod(0o644)),
    "a folder for everybody": ({"folder"}, lambda f: f.chmod(0o755)),
    "a ledger for everybody": ({"folder"}, lambda f: (f / LEDGER).chmod(0o644)),
    "replies for the group": ({"folder"}, lambda f: (f / REPLIES).chmod(0o640)),
    "a ledger of another account": ({"folder"}, lambda f: os.chown(f / LEDGER, 65534, 65534)),
    "no ledger": ({"ledger", "clock"}, lambda f: (f / LEDGER).unlink()),
    "no replies": ({"ledger", "clock"}, lambda f: (f / REPLIES).unlink()),
    "a ledger of other users": ({"ledger", "clock"}, change_owners),
    "a ledger that is older than its counter": ({"ledger"}, put_counter_ahead),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_wrong_is_found_by_name_and_the_rest_is_checked(make_device, name):
    expected, damage = DAMAGE[name]
    if "account" in name and os.geteuid() != 0:
        pytest.skip("needs root, to give a file away")
    folder = make_device()
    damage(folder)
    found = failing(folder)
    assert set(found) == expected
    assert all(said.isprintable() for said in found.values())


def test_a_clock_before_the_build_or_the_newest_entry_is_found(make_device, first_request):
    folder = make_device()
    long_ago = datetime(BUILD_YEAR - 1, 12, 31, tzinfo=UTC).timestamp()
    assert "set it (timedatectl" in failing(folder, clock=lambda: long_ago)["clock"]
    assert open_device(folder).answer(first_request().encode())[:1] == b"\0"
    assert failing(folder) == {}
    found = failing(folder, clock=lambda: time.time() - DAY)
    assert "the ledger's newest entry is of" in found["clock"]


def test_a_ledger_whose_line_was_changed_is_found(make_device, first_request):
    folder = make_device()
    for server_round in (1, 2):
        open_device(folder).answer(first_request(server_round).encode())
    with sqlite3.connect(folder / LEDGER) as ledger:
        ledger.execute("UPDATE lines SET unix_seconds = 0 WHERE number = 1")
    assert "line 1 was changed" in failing(folder)["ledger"]


def no_bytes(count):
    raise OSError("no entropy")


def no_noise(self, numbers, stddev, step):
    return np.rint(numbers / step).astype(np.int64)


def no_gradient(*_):
    raise MemoryError("too little")


@pytest.mark.parametrize(
    ("at", "name", "broken", "expected"),
    [
        (secrets, "token_bytes", no_bytes, {"randomness", "mechanism"}),
        (SecureNoise, "draw", no_noise, {"mechanism"}),
        (gs_wgan, "sample_gradient", no_gradient, {"training"}),
    ],
)
def test_a_machine_that_cannot_answer_is_found(
    make_device, monkeypatch, at, name, broken, expected
):
    folder = make_device()
    monkeypatch.setattr(at, name, broken)
    found = failing(folder)
    assert set(found) == expected
    if expected == {"training"}:
        assert "cannot be computed on this machine: MemoryError: too little" in found["training"]


@pytest.mark.parametrize(
    ("name", "version", "good"),
    [
        ("flwr", "1.39.7", True), ("flwr", "1.40.0", False), ("torch", "2.15.0+cpu", True),
        ("torch", "3.0.0", False), ("fed-gswgan", "0.1.1", False), ("torch", None, False),
    ],
)  # fmt: skip
def test_other_versions_than_the_tested_are_found(monkeypatch, name, version, good):
    def found(asked):
        if asked == name and version is None:
            raise importlib.metadata.PackageNotFoundError(asked)
        return version if asked == name else TESTED[asked][0]

    monkeypatch.setattr(doctor, "version", found)
    said = failing(ROOT).get("versions", "")
    assert (name in said and "pip install" in said) is not good


def test_the_tested_versions_are_those_of_this_checkout():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    assert {name: tested for name, (tested, _) in TESTED.items()} == {
        "fed-gswgan": project["version"], "flwr": pinned["flwr"], "torch": pinned["torch"],
    }  # fmt: skip


class TestCertificates:
    @pytest.fixture(scope="class")
    def certificates(self, tmp_path_factory):
        return make_certificates(tmp_path_factory.mktemp("certificates"))

    @pytest.fixture
    def server(self, certificates):
        """The port of a TLS server on loopback that shakes hands and hangs up."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.certificate, certificates.key)
        with closing(socket.create_server(("127.0.0.1", 0))) as listening:

            def answer():
                with suppress(OSError):  # until the listener is shut
                    while connection := listening.accept()[0]:
                        with suppress(ssl.SSLError, ConnectionError), connection:
                            context.wrap_socket(connection, server_side=True).close()

            threading.Thread(target=answer, daemon=True).start()
            yield listening.getsockname()[1]
            listening.shutdown(socket.SHUT_RDWR)

    def test_certificates_are_read_and_their_days_looked_at(self, certificates, tmp_path):
        def said(path, days=0.0):
            return failing(ROOT, path, lambda: time.time() + days * DAY).get("certificate", "")

        good = tmp_path / "good.pem"
        shutil.copy(certificates.authority, good)
        assert said(good) == ""
        for days in (-10, 365 * 30):
            assert "is valid from" in said(good, days)
        good.write_text("-----BEGIN")
        assert "must hold certificates" in said(good)
        assert "No such file" in said(tmp_path / "missing.pem")

    def test_only_the_server_that_the_device_was_told_of_is_trusted(
        self, server, certificates, tmp_path
    ):
        address, other = f"127.0.0.1:{server}", make_certificates(tmp_path).authority
        assert "server" not in failing(ROOT, certificates.authority, server=address)
        found = failing(ROOT, other, server=address)["server"]
        assert f"{address}: its certificate is not to be trusted" in found

    def test_a_server_that_speaks_no_tls_or_is_gone_is_named(self, certificates):
        with closing(socket.create_server(("127.0.0.1", 0))) as mute:
            port = mute.getsockname()[1]
            threading.Thread(target=lambda: mute.accept()[0].close(), daemon=True).start()
            with pytest.raises(ValueError, match=rf"127.0.0.1:{port}: no answer over TLS"):
                check_server_certificate(f"127.0.0.1:{port}", certificates.authority)

    @pytest.mark.parametrize("server", ["server.example", ":9092", "server.example:x", "9092"])
    def test_an_address_without_a_port_is_refused(self, server, certificates):
        with pytest.raises(ValueError, match=f"server={server} must be HOST:PORT"):
            check_server_certificate(server, certificates.authority)
