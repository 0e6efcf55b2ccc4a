"""A TCP relay between devices and server: counts the bytes of both directions, and can be cut.

What it counts is what crosses the network: TLS records, gRPC's framing, polling and heartbeats.
"""

import contextlib
import selectors
import socket
import threading

CHUNK = 1 << 16


class Relay:
    """Listens on a free port of loopback and passes everything on to ``target``.

    Attributes:
        port: to connect to.
        uplink_bytes: passed on to the target so far.
        downlink_bytes: passed back so far.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.uplink_bytes = self.downlink_bytes = 0
        self._target = target
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._cut = False
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection and refuse new ones, until ``mend``."""
        with self._lock:
            self._cut = True
            self._break_all()

    def mend(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._cut = False

    def close(self) -> None:
        """Stop listening and break every connection."""
        with self._lock:
            self._closed = True
            self._break_all()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept
        self._listener.close()

    def _break_all(self) -> None:
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._target)
        except OSError:
            near.close()
            return
        with near, far:
            with self._lock:
                if self._cut or self._closed:
                    return
                self._open |= {near, far}
            with contextlib.suppress(OSError):
                self._pass_on(near, far)
            with self._lock:
                self._open -= {near, far}

    def _pass_on(self, near: socket.socket, far: socket.socket) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(near, selectors.EVENT_READ, far)
            ready.register(far, selectors.EVENT_READ, near)
            while True:
                for key, _ in ready.select():
                    source, other = key.fileobj, key.data
                    assert isinstance(source, socket.socket)
                    data = source.recv(CHUNK)
                    if not data:
                        return
                    with self._lock:
                        if source is near:
                            self.uplink_bytes += len(data)
                        else:
                            self.downlink_bytes += len(data)
                    other.sendall(data)
