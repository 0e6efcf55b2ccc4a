"""Flower's own simulation runtime: the ClientApp in Ray actors, on this machine or a cluster."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from client.app import app as client_app
from fed_gswgan.device.shards import SIMULATION_FOLDER
from fed_gswgan.settings import Value
from server.client_registry import LONGEST_WAIT_SECONDS

logger = logging.getLogger(__name__)

# What an actor needs of this process's environment, on a cluster too.
PASSED_ON = (SIMULATION_FOLDER, "FED_GSWGAN_DATA")


# Ray's longest socket below its folder, of the 107 bytes that Linux allows:
# /ray/session_YYYY-MM-DD_hh-mm-ss_UUUUUU_PPPPPPP/sockets/plasma_store
LONGEST_SOCKET = 107
SOCKET_BYTES = 70


def temporary_folder(environment: Mapping[str, str]) -> str | None:
    """Return where Ray shall put its files: None, which is its own choice, unless that is too long.

    Args:
        environment: Ray looks at ``RAY_TMPDIR`` and ``TMPDIR``.
    """
    chosen = environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp"
    if len(os.fsencode(chosen)) + SOCKET_BYTES <= LONGEST_SOCKET:
        return None
    logger.warning("TMPDIR=%s is too long for Ray's sockets: they go to /tmp/ray", chosen)
    return "/tmp/ray"


@contextmanager
def _own_signals() -> Iterator[None]:
    """Start Ray without its handlers of signals, and let its processes outlive a SIGTERM.

    A batch system sends SIGTERM to every process of a run. Ray would end this one at once; its
    processes inherit the blocked signal, so that the round at hand is closed before they end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


class ConfiguredClientApp(ClientApp):
    """The ClientApp with a run config, which Flower's Python entry point leaves empty."""

    def __init__(self, run_config: dict[str, Value]) -> None:
        super().__init__()
        self._run_config = run_config

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer with the shipped app under this run's settings."""
        configured = Context(
            run_id=context.run_id,
            node_id=context.node_id,
            node_config=context.node_config,
            state=context.state,
            run_config=self._run_config,
        )
        return client_app(message, configured)


def run_on_ray(
    serve: Callable[[Grid], None],
    run_config: dict[str, Value],
    shards: int,
    workers: int,
    ray_address: str,
) -> None:
    """Start Flower's simulation and run ``serve`` as its ServerApp.

    Args:
        serve: the server's whole run.
        run_config: every client's.
        shards: Flower nodes, each of which hosts a shard of clients.
        workers: actors, where Ray is started here; a cluster has one for each of its cores.
        ray_address: of a running cluster; empty starts Ray on this machine. All its machines must
            share the file system that holds the run.
    """
    import ray
    from flwr.simulation import run_simulation

    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning
    # Ray runs its workers at niceness 15: beside any other busy process they all but stop.
    os.environ.setdefault("RAY_worker_niceness", "0")
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    environment["OMP_NUM_THREADS"] = "1"
    # Without an address Ray would join whatever cluster was last started on this machine.
    arguments: dict[str, Any] = {"address": ray_address or "local"}
    if not ray_address:
        arguments |= {"num_cpus": workers, "_temp_dir": temporary_folder(os.environ)}
    with _own_signals():
        ray.init(
            runtime_env={"env_vars": environment},
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            **arguments,
        )
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        deadline = time.monotonic() + LONGEST_WAIT_SECONDS
        while not list(grid.get_node_ids()) and time.monotonic() < deadline:
            time.sleep(0.05)
        serve(grid)

    run_simulation(
        server_app=server_app,
        client_app=ConfiguredClientApp(run_config),
        num_supernodes=shards,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
