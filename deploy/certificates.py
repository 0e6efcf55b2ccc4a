"""Certificates for TLS and keys for node authentication: ``python -m deploy.certificates DIR``.

Writes ``certificates/`` (an authority and the server's certificate) and, for each ``--node``,
``nodes/NAME/key`` and ``key.pub``. Existing files are kept, so a device that joins later needs one
more call. Devices trust the authority, which lasts ten years; the server's certificate lasts 90
days, and ``--renew`` makes the next one. On real machines each owner makes the key on the device
and sends only the public half; see docs/deployment.md.
"""

import argparse
import datetime
import inspect
import ipaddress
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOOPBACK = ("localhost", "127.0.0.1", "::1")
AUTHORITY_DAYS, SERVER_DAYS = 3650, 90


@dataclass(frozen=True)
class Certificates:
    """Files for TLS in ``folder``: two public certificates, and two private keys."""

    folder: Path

    @property
    def authority(self) -> Path:
        """Certificate of the authority, for every peer."""
        return self.folder / "ca.pem"

    @property
    def authority_key(self) -> Path:
        """Private key of the authority, for ``renew_certificate`` alone; no process needs it."""
        return self.folder / "ca.key"

    @property
    def certificate(self) -> Path:
        """Certificate of the server."""
        return self.folder / "server.pem"

    @property
    def key(self) -> Path:
        """Private key of the server."""
        return self.folder / "server.key"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing and say where it lies."""
    parser = argparse.ArgumentParser(prog="python -m deploy.certificates", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument(
        "--host",
        action="append",
        default=[],
        help="name or address by which devices reach the server; loopback is always among them",
    )
    parser.add_argument(
        "--renew",
        action="store_true",
        help="replace the server's certificate and key; devices need nothing new",
    )
    parser.add_argument("--node", action="append", default=[], metavar="NAME", help="a device")
    options = parser.parse_args(arguments)
    folder = options.folder / "certificates"
    try:
        certificates = (renew_certificate if options.renew else make_certificates)(
            folder, options.host
        )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"for every device: {certificates.authority}")
    print(f"for the server alone: {certificates.certificate}, {certificates.key}")
    print(f"for --renew alone, readable by no service: {certificates.authority_key}")
    for name in options.node:
        print(f"key of {name}: {make_node_key(options.folder / 'nodes' / name)}")
    return 0


def make_certificates(folder: Path, hosts: Sequence[str] = ()) -> Certificates:
    """Make an authority and a server certificate for these hosts and loopback, unless they exist.

    Raises:
        ValueError: the certificate that is there is not for one of these hosts.
    """
    made = Certificates(folder)
    if made.certificate.exists():
        _require_names(made.certificate, _host_names(hosts))
        return made
    folder.mkdir(parents=True, exist_ok=True)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    _write_private(made.authority_key, authority_key, serialization.PrivateFormat.PKCS8)
    made.authority.write_bytes(_certificate("authority", authority_key, authority_key, None))
    _issue(made, authority_key, _host_names(hosts))
    return made


def renew_certificate(folder: Path, hosts: Sequence[str] = ()) -> Certificates:
    """Replace the server's certificate and key: the same authority, the same hosts and new ones.

    Raises:
        OSError, ValueError: there is no certificate, or no key of the authority, to do it with.
    """
    made = Certificates(folder)
    names = [*_names_in(made.certificate), *_host_names(hosts)]
    try:
        authority_key = serialization.load_pem_private_key(made.authority_key.read_bytes(), None)
    except FileNotFoundError as error:
        raise ValueError(
            f"{made.authority_key} is missing, and nothing else signs for {made.authority}; put it "
            "back, or make certificates in another folder and give every device the new ca.pem"
        ) from error
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    _issue(made, authority_key, list(dict.fromkeys(names)))
    return made


def _issue(
    made: Certificates, authority_key: ec.EllipticCurvePrivateKey, names: list[x509.GeneralName]
) -> None:
    """Write a new key and certificate of the server; files that are replaced keep their owner."""
    server_key = ec.generate_private_key(ec.SECP256R1())
    written = made.key.with_suffix(".key.new"), made.certificate.with_suffix(".pem.new")
    written[0].unlink(missing_ok=True)
    _write_private(written[0], server_key, serialization.PrivateFormat.PKCS8)
    written[1].write_bytes(
        _certificate("server", server_key, authority_key, x509.SubjectAlternativeName(names))
    )
    for new, path in zip(written, (made.key, made.certificate), strict=True):
        if path.exists():
            owner = path.stat()
            os.chown(new, owner.st_uid, owner.st_gid)
        os.replace(new, path)


def make_node_key(folder: Path) -> Path:
    """Make a device's key pair for node authentication, unless there is one; return the private.

    An EC key on NIST's P-384 in OpenSSH's format, as ``ssh-keygen -t ecdsa -b 384`` makes it.
    """
    path = folder / "key"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP384R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    public_key_path(path).write_bytes(public + b"\n")
    _write_private(path, key, serialization.PrivateFormat.OpenSSH)
    return path


def public_key_path(private_key: Path) -> Path:
    """Return where the public half of a node's key lies."""
    return private_key.with_name(f"{private_key.name}.pub")


def _names_in(path: Path) -> list[x509.GeneralName]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)


def _require_names(path: Path, wanted: Sequence[x509.GeneralName]) -> None:
    names = _names_in(path)
    if missing := [name.value for name in wanted if name not in names]:
        raise ValueError(
            f"{path}: not for host {missing[0]}; --renew --host {missing[0]} makes one that is"
        )


def _certificate(
    role: str,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    hosts: x509.SubjectAlternativeName | None,
) -> bytes:
    """Return a certificate as PEM; ``hosts`` are those of a server, None makes an authority."""
    subject, issuer = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"fed-gswgan {name}")])
        for name in (role, "authority")
    )
    is_authority = hosts is None
    usage = dict.fromkeys(inspect.signature(x509.KeyUsage).parameters, False)
    usage |= (
        {"key_cert_sign": True, "crl_sign": True} if is_authority else {"digital_signature": True}
    )
    now = datetime.datetime.now(datetime.UTC)
    lasts = datetime.timedelta(days=AUTHORITY_DAYS if is_authority else SERVER_DAYS)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # the clock of a device may be late
        .not_valid_after(now + lasts)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(is_authority, 0 if is_authority else None), True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
    )
    if hosts is not None:
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = builder.add_extension(signer, critical=False).add_extension(hosts, critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _host_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """Return these hosts and loopback, each once."""
    return [_host_name(host) for host in dict.fromkeys([*hosts, *LOOPBACK])]


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_private(
    path: Path, key: ec.EllipticCurvePrivateKey, private_format: serialization.PrivateFormat
) -> None:
    """Write a key to a file that only its owner can read, from its creation on."""
    data = key.private_bytes(
        serialization.Encoding.PEM, private_format, serialization.NoEncryption()
    )
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)


if __name__ == "__main__":
    sys.exit(main())
