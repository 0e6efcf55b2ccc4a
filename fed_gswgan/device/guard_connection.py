"""A guard's connection to one peer: a request in pieces, an answer in pieces, never a wait."""

import socket
import struct
import time
from collections.abc import Generator

from fed_gswgan.device.guard_frame import Frame, incoming
from fed_gswgan.privacy.refusals import MalformedInput

REQUEST_SECONDS = 10.0  # from connecting to the request's last byte
ANSWER_SECONDS = 30.0  # to take the answer
_CREDENTIALS = struct.Struct("3i")  # process, user, group


class Connection:
    """One peer, and how far its request or its answer has come."""

    def __init__(self, peer: socket.socket, largest_body_bytes: int) -> None:
        self.peer = peer
        self.process, self.user, _ = _CREDENTIALS.unpack(
            peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        self.deadline = time.monotonic() + REQUEST_SECONDS
        self.reading = True
        self._reader: Generator[memoryview, None, Frame] = incoming(largest_body_bytes)
        self._buffer = next(self._reader)

    def read(self) -> Frame | None:
        """Take what is there and return the request once it is whole.

        Raises:
            MalformedInput: it is none, or ends too early.
        """
        received = self.peer.recv_into(self._buffer)
        if received == 0:
            raise MalformedInput("frame ends before it is whole")
        self._buffer = self._buffer[received:]
        while not self._buffer:
            try:
                self._buffer = next(self._reader)
            except StopIteration as end:
                frame: Frame = end.value
                return frame
        return None

    def too_slow(self) -> MalformedInput:
        """Return what to tell a peer whose deadline passed before its request was whole."""
        return MalformedInput(f"frame is not whole after {REQUEST_SECONDS:g} s")

    def stop_reading(self) -> None:
        """Let go of the request's buffers."""
        self.reading, self._buffer = False, memoryview(b"")
        self._reader.close()

    def answer_with(self, written: bytes) -> None:
        """Begin to send an answer."""
        self._buffer = memoryview(written)
        self.deadline = time.monotonic() + ANSWER_SECONDS

    def write(self) -> bool:
        """Send what the peer takes, and tell whether that was all."""
        self._buffer = self._buffer[self.peer.send(self._buffer) :]
        return not self._buffer
