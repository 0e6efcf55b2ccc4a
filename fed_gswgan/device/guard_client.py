"""A relay's side of the guard's socket: ask, and wait for the answer."""

import contextlib
import socket
import time
from pathlib import Path

from fed_gswgan.device.guard_frame import Frame, incoming, pack
from fed_gswgan.privacy.refusals import MalformedInput

PATIENCE_SECONDS = 3600.0  # a critic may train for long; the server stops waiting before that
CONNECT_SECONDS = 10.0
LARGEST_ANSWER_BYTES = 2**30


class GuardUnreachable(ConnectionError):
    """No guard answered: it is not running, not to be reached from this account, or ended."""


def ask_guard(path: Path, request: Frame, patience_seconds: float = PATIENCE_SECONDS) -> Frame:
    """Send a request to the guard at this socket and return its answer.

    Raises:
        MalformedInput: the request cannot be written as a frame; nothing was sent.
        GuardUnreachable: there was no answer; to ask again costs nothing that was answered before.
    """
    written = pack(request)
    deadline = time.monotonic() + patience_seconds
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as guard:
            guard.settimeout(patience_seconds)
            _connect(guard, path)
            # A guard that refuses by the first bytes alone answers, and reads no further.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                guard.sendall(written)
            return _answer(guard, deadline)
    except (OSError, MalformedInput) as error:
        raise GuardUnreachable(f"guard at {path}: {error}") from error


def _connect(guard: socket.socket, path: Path) -> None:
    """Connect, and wait a moment where too many others do the same."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            guard.connect(str(path))
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _answer(guard: socket.socket, deadline: float) -> Frame:
    reader = incoming(LARGEST_ANSWER_BYTES)
    buffer = next(reader)
    while True:
        while buffer:
            guard.settimeout(max(deadline - time.monotonic(), 0.001))
            received = guard.recv_into(buffer)
            if received == 0:
                raise ConnectionError("it hung up before its answer was whole")
            buffer = buffer[received:]
        try:
            buffer = next(reader)
        except StopIteration as end:
            frame: Frame = end.value
            return frame
