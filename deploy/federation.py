"""Federation on loopback: a SuperLink, guards, SuperNodes, and a TCP relay that counts bytes.

All state is in one folder: ``certificates/``; ``superlink/`` (database and FLWR_HOME);
``nodes/NAME/`` (key, images, FLWR_HOME, and ``device/`` of the guard); ``run/``; ``logs/``.
"""

import contextlib
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deploy.certificates import Certificates, make_certificates, make_node_key, public_key_path
from deploy.flower_commands import (
    SUPERNODE,
    Submission,
    copy_app,
    flower_environment,
    guard_command,
    output_of,
    register_command,
    superlink_command,
    supernode_command,
    write_connection,
)
from deploy.program import Program, stop_all
from fed_gswgan.device.folder import SOCKET
from fed_gswgan.settings import Value

CHUNK = 1 << 16


class Relay:
    """TCP relay between devices and server: counts the bytes of both directions, and can be cut.

    The counts include TLS records, gRPC framing, polling and heartbeats.

    Attributes:
        port: free port of loopback on which it listens.
        uplink_bytes: bytes sent to ``target`` so far.
        downlink_bytes: bytes received from it so far.
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


DEVICE = "device"  # folder of a guard, below nodes/NAME
START_PATIENCE_SECONDS = 120.0
COMMAND_PATIENCE_SECONDS = 120.0
RESTART_PAUSE_SECONDS = 5.0
ALREADY_REGISTERED = "already in use"


@dataclass(frozen=True, kw_only=True)
class Security:
    """How peers know one another.

    Attributes:
        tls: encrypted, and devices know the server by its certificate.
        authenticated: the server knows the devices by their registered keys; needs TLS.
    """

    tls: bool = True
    authenticated: bool = True

    def __post_init__(self) -> None:
        if self.authenticated and not self.tls:
            raise ValueError("node authentication needs TLS: drop --insecure, or add --no-auth")


class Federation:
    """The processes of one federation; ``running`` makes one and ends it.

    Args:
        folder: of all state.
        names: of the devices; ``nodes/NAME/device`` is there for each.
        security: how peers know one another.
        guard: the command that serves a device's folder.
        supernode: the program that relays.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        security: Security,
        guard: Callable[[Path], list[str]] = guard_command,
        supernode: Sequence[str] = SUPERNODE,
    ) -> None:
        self.folder = folder.absolute()
        self.security = security
        self.certificates: Certificates | None = None
        if security.tls:
            self.certificates = make_certificates(self.folder / "certificates")
        self.app = copy_app(self.folder / "app")
        self._fleet_port, self._control_port, *runtime_ports = free_ports(2 + len(names))
        self.relay = Relay(("127.0.0.1", self._fleet_port))
        self._environment = self._environment_of("superlink")
        self._submission = Submission(self._flwr)
        write_connection(
            self._machine("superlink") / "flwr-home", self._control_port, self.certificates
        )
        self.superlink = self._program(
            "superlink",
            superlink_command(
                self._fleet_port,
                self._control_port,
                self.folder / "superlink" / "state.db",
                self.certificates,
                security.authenticated,
            ),
            "superlink",
        )
        self.guards = {
            name: self._program(name, guard(self.device_folder(name)), f"{name}-guard")
            for name in names
        }
        self.nodes = {
            name: self._program(name, self._supernode(name, port, supernode), f"{name}-supernode")
            for name, port in zip(names, runtime_ports, strict=True)
        }

    @property
    def run_folder(self) -> Path:
        """Where the run is written."""
        return self.folder / "run"

    def programs(self) -> list[Program]:
        """Return all that is started again when it ends."""
        return [self.superlink, *self.guards.values(), *self.nodes.values()]

    def device_folder(self, name: str) -> Path:
        """Return a device's own folder, its guard's alone."""
        return self._machine(name) / DEVICE

    def start(self) -> None:
        """Start guards and SuperLink, make the devices known to it, start the SuperNodes."""
        for guard in self.guards.values():
            guard.start()
        self.start_superlink()
        for name, node in self.nodes.items():
            if self.security.authenticated:
                self.register(public_key_path(self._machine(name) / "key"))
            node.start()
        for name, guard in self.guards.items():
            _wait_for(guard, partial(_answers_at, self.device_folder(name) / SOCKET))

    def start_superlink(self) -> None:
        """Start the SuperLink and wait until both its ports answer."""
        self.superlink.start()
        for port in (self._control_port, self._fleet_port):
            _wait_for(self.superlink, partial(_answers, port))

    def restart_ended(self) -> list[str]:
        """Start again whatever ended, as systemd would, and return the names."""
        now = time.monotonic()
        ended = [
            program
            for program in self.programs()
            if not program.alive() and now - program.started_at > RESTART_PAUSE_SECONDS
        ]
        for program in ended:
            if program is self.superlink:
                self.start_superlink()
            else:
                program.start()
        return [program.name for program in ended]

    def register(self, public_key: Path) -> None:
        """Let the owner of this key connect, if that is not so already."""
        try:
            self._flwr(register_command(public_key))
        except RuntimeError as error:
            if ALREADY_REGISTERED not in str(error):
                raise

    def submit(self, run_config: Mapping[str, Value], app: Path | None = None) -> None:
        """Send the app, or another, to the SuperLink, which starts its ServerApp."""
        self._submission.submit(app or self.app, run_config)

    def stop(self) -> None:
        """End every process, the SuperNodes first, so that they can say goodbye."""
        stop_all(list(self.nodes.values()))
        stop_all([self.superlink, *self.guards.values()])
        self.relay.close()

    def _flwr(self, command: list[str]) -> str:
        return output_of(
            command, env=self._environment, cwd=self.app, timeout=COMMAND_PATIENCE_SECONDS
        )

    def _supernode(self, name: str, runtime_port: int, program: Sequence[str]) -> list[str]:
        key = make_node_key(self._machine(name)) if self.security.authenticated else None
        node_config: dict[str, Value] = {"guard": str(self.device_folder(name) / SOCKET)}
        return supernode_command(
            self.relay.port, runtime_port, node_config, self.certificates, key, program
        )

    def _program(self, machine: str, command: list[str], name: str) -> Program:
        log = self.folder / "logs" / f"{name}.log"
        return Program(name, command, self._environment_of(machine), self.app, log)

    def _environment_of(self, machine: str) -> dict[str, str]:
        return flower_environment(self._machine(machine) / "flwr-home")

    def _machine(self, name: str) -> Path:
        return self.folder / name if name == "superlink" else self.folder / "nodes" / name


@contextmanager
def running(
    folder: Path,
    names: Sequence[str],
    security: Security,
    guard: Callable[[Path], list[str]] = guard_command,
    supernode: Sequence[str] = SUPERNODE,
) -> Iterator[Federation]:
    """Start a federation and end all of it, however the block ends, SIGTERM included."""
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGTERM, signal.default_int_handler)
            stack.callback(signal.signal, signal.SIGTERM, before)
        federation = Federation(folder, names, security, guard, supernode)
        stack.callback(federation.stop)
        federation.start()
        yield federation


def free_ports(count: int) -> list[int]:
    """Return different ports of loopback that nobody listens on."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _wait_for(program: Program, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_PATIENCE_SECONDS
    while not ready():
        if not program.alive() or time.monotonic() > deadline:
            raise RuntimeError(f"{program.name} did not start:\n{program.last_lines()}")
        time.sleep(0.2)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers_at(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
