"""Whether a device would trust its server: the handshake that its SuperNode begins with."""

import socket
import ssl
from pathlib import Path

PATIENCE_SECONDS = 10.0


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
