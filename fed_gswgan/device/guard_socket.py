"""The Unix domain socket that a guard listens at: how long its path may be, and who may connect."""

import os
import socket
from pathlib import Path

LONGEST_PATH_BYTES = 107  # of a Unix domain socket
BACKLOG = 128  # peers that the system lets wait before they are looked at
SOCKET_MODE = 0o660


def listen(path: Path) -> socket.socket:
    """Return a listening socket in place of what an earlier guard may have left there.

    Raises:
        ValueError: the path is longer than a socket's may be.
        OSError: it cannot be made.
    """
    if (size := len(os.fsencode(path))) > LONGEST_PATH_BYTES:
        raise ValueError(
            f"socket={str(path)!r} has {size} bytes, must have at most {LONGEST_PATH_BYTES}; "
            "name a shorter one in device.toml"
        )
    if path.is_socket():
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        os.chmod(path, SOCKET_MODE)  # until then only its owner may connect
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
