"""Flower's own simulation runtime: the ClientApp in Ray actors, on this machine or a cluster."""

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from client.app import app as client_app
from fed_gswgan.device.shards import SIMULATION_FOLDER
from fed_gswgan.settings import Value
from server.client_registry import LONGEST_WAIT_SECONDS

# What an actor needs of this process's environment, on a cluster too.
PASSED_ON = (SIMULATION_FOLDER, "FED_GSWGAN_DATA")


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
        arguments["num_cpus"] = workers
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
