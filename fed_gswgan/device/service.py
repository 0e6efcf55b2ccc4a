"""Service of a guard over a Unix domain socket: gRPC that carries bytes.

Directory and mode of the socket decide who may connect: gRPC does not tell the peer's account.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from filelock import FileLock, Timeout

from fed_gswgan.privacy.refusals import LedgerLocked

logger = logging.getLogger(__name__)

SERVICE, ANSWER, PROVE = "fed_gswgan.Guard", "Answer", "Prove"
LARGEST_MESSAGE_BYTES = 2**28 + 2**20
LONGEST_PATH_BYTES = 107  # of a Unix domain socket
SOCKET_UMASK = 0o117  # owner and group may connect
THREADS = 4  # the identity is proven while a request is answered
ANSWER_PATIENCE_SECONDS = 3600.0
CONNECT_PATIENCE_SECONDS = 5.0
_OPTIONS = [
    ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
    ("grpc.max_send_message_length", LARGEST_MESSAGE_BYTES),
    ("grpc.default_authority", "localhost"),
]


class GuardUnreachable(ConnectionError):
    """No guard answers at the socket."""


def check_path(path: Path) -> None:
    """Require a path that a socket may have.

    Raises:
        ValueError: it is too long.
    """
    if (size := len(os.fsencode(path))) > LONGEST_PATH_BYTES:
        raise ValueError(
            f"socket={str(path)!r} has {size} bytes, must have at most {LONGEST_PATH_BYTES}; "
            "name a shorter one in device.toml"
        )


def serve(
    path: Path,
    prove: Callable[[bytes], bytes],
    answer: Callable[[bytes], bytes],
    lock: Path,
    ready: Callable[[], None],
) -> None:
    """Answer requests at the socket, one at a time, until SIGTERM or Ctrl-C.

    Args:
        path: of the socket; one that an earlier guard left is replaced.
        prove: a server's challenge to the proof of who the device is.
        answer: bytes of a request to bytes of a release or refusal.
        lock: file that only one serving process holds.
        ready: called once relays may connect.

    Raises:
        LedgerLocked: another process serves this device.
        OSError, ValueError: the socket cannot be made.
    """
    check_path(path)
    held = FileLock(lock, mode=0o600)  # an account that may read it can hold it
    try:
        held.acquire(timeout=0)
    except Timeout as error:
        raise LedgerLocked(f"{lock.parent}: another process serves this device") from error
    with held:
        server = _server(path, prove, answer)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        server.start()
        ready()
        sys.stdout.flush()
        stop.wait()
        server.stop(grace=None).wait()
        path.unlink(missing_ok=True)


def ask(path: Path, blob: bytes) -> bytes:
    """Return the guard's answer to a request.

    Raises:
        GuardUnreachable: no guard answers at the socket.
    """
    return _call(path, ANSWER, blob, ANSWER_PATIENCE_SECONDS)


def ask_for_proof(path: Path, challenge: bytes) -> bytes:
    """Return the device's public key and its signature; GuardUnreachable as ``ask``."""
    return _call(path, PROVE, challenge, CONNECT_PATIENCE_SECONDS)


def _server(
    path: Path, prove: Callable[[bytes], bytes], answer: Callable[[bytes], bytes]
) -> grpc.Server:
    one_at_a_time = threading.Lock()

    def answered(blob: bytes, context: Any) -> bytes:
        with one_at_a_time:
            return answer(blob)

    def proven(challenge: bytes, context: Any) -> bytes:
        return prove(challenge)

    handlers = {
        ANSWER: grpc.unary_unary_rpc_method_handler(answered),
        PROVE: grpc.unary_unary_rpc_method_handler(proven),
    }
    server = grpc.server(ThreadPoolExecutor(THREADS), options=_OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    if path.is_socket():
        path.unlink()
    before = os.umask(SOCKET_UMASK)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise OSError(f"socket={str(path)!r}: {error}") from error
    finally:
        os.umask(before)
    return server


def _call(path: Path, method: str, blob: bytes, patience_seconds: float) -> bytes:
    with grpc.insecure_channel(f"unix:{path}", options=_OPTIONS) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_PATIENCE_SECONDS)
            call = channel.unary_unary(f"/{SERVICE}/{method}")
            return bytes(call(blob, timeout=patience_seconds))
        except (grpc.FutureTimeoutError, grpc.RpcError) as error:
            raise GuardUnreachable(f"no guard answers at {path}: {error}") from error
