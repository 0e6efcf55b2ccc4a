import socket
import ssl
import threading
from contextlib import closing

import pytest

from deploy.certificates import make_certificates
from fed_gswgan.device.server_certificate import check_server_certificate


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def server(certificates):
    """A TLS server on loopback that shakes hands and hangs up."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def answer():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                try:
                    context.wrap_socket(connection, server_side=True).close()
                except OSError:
                    connection.close()

        threading.Thread(target=answer, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def test_the_server_that_the_device_was_told_of_is_trusted(server, certificates):
    assert check_server_certificate(f"127.0.0.1:{server}", certificates.authority) is None


def test_a_server_of_another_authority_is_not(server, tmp_path):
    other = make_certificates(tmp_path).authority
    with pytest.raises(ValueError, match=rf"127.0.0.1:{server}: its certificate is not to be"):
        check_server_certificate(f"127.0.0.1:{server}", other)


def test_nor_one_of_another_name(server, certificates, monkeypatch):
    create = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda at, s: create(("127.0.0.1", at[1]), s))
    with pytest.raises(ValueError, match="not to be trusted"):
        check_server_certificate(f"other.example:{server}", certificates.authority)


def test_a_server_that_is_not_there_or_speaks_no_tls_is_named(certificates):
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        port = mute.getsockname()[1]
        threading.Thread(target=lambda: mute.accept()[0].close(), daemon=True).start()
        with pytest.raises(ValueError, match=rf"127.0.0.1:{port}: no answer over TLS"):
            check_server_certificate(f"127.0.0.1:{port}", certificates.authority)
    with pytest.raises(ValueError, match="is it up, and reachable"):
        check_server_certificate(f"127.0.0.1:{port}", certificates.authority)


@pytest.mark.parametrize("server", ["server.example", ":9092", "server.example:x", "9092"])
def test_an_address_without_a_port_is_refused(server, certificates):
    with pytest.raises(ValueError, match=f"server={server} must be HOST:PORT"):
        check_server_certificate(server, certificates.authority)
