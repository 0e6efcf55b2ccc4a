import contextlib
import socket
import threading
import time

import pytest

from deploy.federation import Relay, Security


@pytest.fixture
def echo():
    """A server that sends back twice what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection):
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data * 2)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def relay(echo):
    relay = Relay(echo)
    yield relay
    relay.close()


def ask(relay, data):
    with socket.create_connection(("127.0.0.1", relay.port), timeout=20) as connection:
        connection.sendall(data)
        received = b""
        with contextlib.suppress(ConnectionResetError):  # as good an end as any
            while len(received) < 2 * len(data) and (chunk := connection.recv(4096)):
                received += chunk
        return received


def test_what_goes_through_comes_out_and_is_counted_by_direction(relay):
    assert ask(relay, b"hello") == b"hellohello"
    assert ask(relay, b"x" * 100_000) == b"x" * 200_000
    assert (relay.uplink_bytes, relay.downlink_bytes) == (100_005, 200_010)


def test_a_cut_breaks_what_is_open_and_refuses_what_comes_until_mended(relay):
    with socket.create_connection(("127.0.0.1", relay.port), timeout=20) as connection:
        connection.sendall(b"a")
        assert connection.recv(10) == b"aa"
        relay.cut()
        assert connection.recv(10) == b""
    assert ask(relay, b"b") == b""
    relay.mend()
    assert ask(relay, b"c") == b"cc"


def test_a_closed_relay_takes_no_connection(relay):
    relay.close()
    time.sleep(0.05)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", relay.port), timeout=5)


def test_authentication_without_tls_is_refused():
    with pytest.raises(ValueError, match="node authentication needs TLS"):
        Security(tls=False)
