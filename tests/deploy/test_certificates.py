import os
import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from deploy.certificates import (
    Certificates,
    main,
    make_certificates,
    make_node_key,
    public_key_path,
    renew_certificate,
)


def handshake(certificates: Certificates, host: str, authority: Path | None = None) -> None:
    """Shake hands as a device that expects ``host``; ssl.SSLCertVerificationError if it may not."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificates.certificate, certificates.key)
    client = ssl.create_default_context(cafile=authority or certificates.authority)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=host)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for end in (near, far):
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                continue


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_peer_that_trusts_the_authority_reaches_the_server_by_name_and_by_address(tmp_path):
    certificates = make_certificates(tmp_path, ["server.example"])
    for host in ("server.example", "localhost", "127.0.0.1"):
        handshake(certificates, host)


def test_another_host_and_another_authority_are_refused(tmp_path):
    certificates = make_certificates(tmp_path / "one")
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
        handshake(certificates, "elsewhere.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(certificates, "localhost", make_certificates(tmp_path / "two").authority)


def test_private_keys_are_for_their_owner_alone_and_made_once(tmp_path):
    certificates, key = make_certificates(tmp_path), make_node_key(tmp_path / "a")
    assert mode(certificates.key) == mode(certificates.authority_key) == mode(key) == 0o600
    before = certificates.certificate.read_bytes(), key.read_bytes()
    make_certificates(tmp_path)
    make_node_key(tmp_path / "a")
    assert (certificates.certificate.read_bytes(), key.read_bytes()) == before


def test_a_node_key_is_what_flower_takes(tmp_path):
    path = make_node_key(tmp_path)
    private = load_ssh_private_key(path.read_bytes(), None)
    public = load_ssh_public_key(public_key_path(path).read_bytes())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert public.curve.name == "secp384r1"
    assert private.public_key() == public


def test_a_certificate_for_other_hosts_is_said_and_not_replaced(tmp_path):
    certificates = make_certificates(tmp_path, ["server.example"])
    before = certificates.certificate.read_bytes()
    with pytest.raises(ValueError, match=r"not for host 10\.0\.0\.7"):
        make_certificates(tmp_path, ["server.example", "10.0.0.7"])
    assert certificates.certificate.read_bytes() == before


def days_left(path):
    last = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    return (last - datetime.now(UTC)).total_seconds() / 86400


def test_the_servers_certificate_is_renewed_and_devices_need_nothing_new(tmp_path):
    certificates = make_certificates(tmp_path, ["server.example"])
    authority = certificates.authority.read_bytes()
    before = certificates.certificate.read_bytes(), certificates.key.read_bytes()
    assert days_left(certificates.certificate) < 100 < 3000 < days_left(certificates.authority)
    if os.geteuid() == 0:
        os.chown(certificates.key, 12345, 12346)  # the server's account
    assert renew_certificate(tmp_path, ["10.0.0.7"]) == certificates
    assert certificates.authority.read_bytes() == authority
    assert before[0] != certificates.certificate.read_bytes()
    assert before[1] != certificates.key.read_bytes()
    if os.geteuid() == 0:
        owner = certificates.key.stat()
        assert (owner.st_uid, owner.st_gid) == (12345, 12346)
    assert mode(certificates.key) == 0o600
    for host in ("server.example", "localhost", "10.0.0.7"):
        handshake(certificates, host)
    assert not list(tmp_path.glob("*.new"))


def test_a_renewal_without_the_authoritys_key_changes_nothing(tmp_path, capsys):
    certificates = make_certificates(tmp_path / "certificates")
    certificates.authority_key.unlink()
    before = certificates.certificate.read_bytes()
    assert main([str(tmp_path), "--renew"]) == 1
    assert "ca.key is missing" in capsys.readouterr().err
    assert certificates.certificate.read_bytes() == before
    assert main([str(tmp_path / "nowhere"), "--renew"]) == 1


def test_the_command_makes_all_of_it_and_says_who_gets_what(tmp_path, capsys):
    assert main([str(tmp_path), "--host", "10.0.0.7", "--node", "a", "--node", "b"]) == 0
    said = capsys.readouterr().out
    assert "for every device" in said
    assert "for the server alone" in said
    assert (tmp_path / "nodes" / "b" / "key.pub").exists()
    authority = x509.load_pem_x509_certificate((tmp_path / "certificates" / "ca.pem").read_bytes())
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
