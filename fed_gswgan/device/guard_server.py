"""The guard's socket: frames in, one answer each, whoever is at the other end.

One thread reads, writes and never waits for anybody; another answers, one request at a time. Slow,
silent and malformed peers cost a buffer for some seconds, and stop nobody else.
"""

import contextlib
import logging
import queue
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fed_gswgan.device.guard_connection import Connection
from fed_gswgan.device.guard_frame import Frame, pack
from fed_gswgan.device.guard_socket import listen
from fed_gswgan.privacy.refusals import LedgerLocked, MalformedInput, Refusal
from fed_gswgan.strangers_text import one_line

logger = logging.getLogger(__name__)

MOST_CONNECTIONS = 16


class GuardServer:
    """Serves at a Unix domain socket until it is stopped.

    Args:
        path: of the socket; accounts of its group may connect.
        answer: the reply to a request; a Refusal it raises is told, another exception is not.
        largest_body_bytes: of a request's arrays.
    """

    def __init__(
        self, path: Path, answer: Callable[[Frame], Frame], largest_body_bytes: int
    ) -> None:
        self._answer = answer
        self._largest_body_bytes = largest_body_bytes
        self._path = path
        self._listener = listen(path)
        self._waker, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._connections: set[Connection] = set()
        self._requests: queue.SimpleQueue[tuple[Connection, Frame] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[Connection, bytes]] = queue.SimpleQueue()
        self._stopping = threading.Event()

    def serve(self) -> None:
        """Answer until ``stop``; a request at hand is answered first."""
        worker = threading.Thread(target=self._answer_requests, name="guard", daemon=True)
        worker.start()
        self._woken.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        try:
            while not self._stopping.is_set():
                self._step()
            self._selector.unregister(self._listener)
            for connection in [c for c in self._connections if c.reading]:
                self._drop(connection)
            self._requests.put(None)
            while self._connections:
                self._step()
        finally:
            self._close()

    def stop(self) -> None:
        """Let ``serve`` return; may be called from another thread or a signal handler."""
        self._stopping.set()
        self._wake()

    def _step(self) -> None:
        for key, _ in self._selector.select(self._patience()):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._woken:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
            elif key.data in self._connections:  # it may have made room for another by now
                self._go_on(key.data)
        while not self._answers.empty():
            connection, written = self._answers.get()
            self._send(connection, written)
        now = time.monotonic()
        for connection in [c for c in self._connections if c.deadline < now]:
            if connection.reading:
                self._refuse(connection, connection.too_slow())
            else:
                self._drop(connection)

    def _patience(self) -> float | None:
        first = min((c.deadline for c in self._connections), default=float("inf"))
        return None if first == float("inf") else max(first - time.monotonic(), 0.0)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # who hung up already is nobody's trouble
            peer, _ = self._listener.accept()
            peer.setblocking(False)
            connection = Connection(peer, self._largest_body_bytes)
            full = len(self._connections) >= MOST_CONNECTIONS and not self._make_room()
            self._connections.add(connection)
            self._selector.register(peer, selectors.EVENT_READ, connection)
            if full:
                self._refuse(connection, LedgerLocked("the guard is busy; ask again"))

    def _make_room(self) -> bool:
        """Drop the oldest of the connections that wait for their peer, of the process with most.

        A peer that sends and takes what it should is done in milliseconds.
        """
        idle = [c for c in self._connections if c.deadline < float("inf")]
        if not idle:
            return False
        held = Counter(c.process for c in idle)
        self._drop(min(idle, key=lambda c: (-held[c.process], c.deadline)))
        return True

    def _go_on(self, connection: Connection) -> None:
        try:
            if not connection.reading:
                if connection.write():
                    self._drop(connection)
            elif (request := connection.read()) is not None:
                connection.stop_reading()
                connection.deadline = float("inf")
                self._selector.unregister(connection.peer)
                self._requests.put((connection, request))
        except MalformedInput as refusal:
            self._refuse(connection, refusal)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(connection)

    def _refuse(self, connection: Connection, refusal: Refusal) -> None:
        connection.stop_reading()
        self._selector.unregister(connection.peer)
        self._send(connection, _refusal(connection, refusal))

    def _send(self, connection: Connection, written: bytes) -> None:
        connection.answer_with(written)
        self._selector.register(connection.peer, selectors.EVENT_WRITE, connection)

    def _drop(self, connection: Connection) -> None:
        self._connections.discard(connection)
        with contextlib.suppress(KeyError):
            self._selector.unregister(connection.peer)
        connection.peer.close()

    def _answer_requests(self) -> None:
        while (asked := self._requests.get()) is not None:
            connection, request = asked
            try:
                if self._stopping.is_set():
                    raise LedgerLocked("the guard is stopping; ask again")
                written = pack(self._answer(request))
            except Refusal as refusal:
                written = _refusal(connection, refusal)
            except Exception:  # what failed may depend on data, and stays here
                logger.exception("a request of uid %d failed", connection.user)
                written = pack(Frame(kind="failure"))
            del asked, request
            self._answers.put((connection, written))
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # a full pipe wakes too; a closed one need not
            self._waker.send(b"\0", socket.MSG_DONTWAIT)

    def _close(self) -> None:
        for connection in list(self._connections):
            self._drop(connection)
        self._selector.close()
        for end in (self._listener, self._waker, self._woken):
            end.close()
        self._path.unlink(missing_ok=True)


def _refusal(connection: Connection, refusal: Refusal) -> bytes:
    # A stranger may have put anything into a name: no line breaks in the log, no half characters.
    reason = one_line(f"{refusal.name}: {refusal}")
    logger.warning("refused uid %d: %s", connection.user, reason)
    return pack(Frame(kind="refusal", config={"code": refusal.code, "reason": reason}))
