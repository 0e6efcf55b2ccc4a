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
from fed_gswgan.device.virtual_clients import SIMULATION_FOLDER
from fed_gswgan.flat_table import Value
from fed_gswgan.profiling import PROFILE_FOLDER
from server.registration import LONGEST_WAIT_SECONDS
from simulations.packed_grid import PackedClientApp, PackedGrid

# What an actor needs of this process's environment, on a cluster too.
PASSED_ON = (SIMULATION_FOLDER, PROFILE_FOLDER, "FED_GSWGAN_DATA")


class ConfiguredClientApp(ClientApp):
    """The ClientApp with a run config, which Flower's Python entry point leaves empty."""

    def __init__(self, run_config: dict[str, Value]) -> None:
        super().__init__()
        self._settings = run_config

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer with the shipped app under this run's settings."""
        configured = Context(
            run_id=context.run_id,
            node_id=context.node_id,
            node_config=context.node_config,
            state=context.state,
            run_config=self._settings,
        )
        return client_app(message, configured)


def run_on_ray(
    serve: Callable[[Grid], None],
    run_config: dict[str, Value],
    clients: int,
    workers: int,
    clients_per_message: int,
    ray_address: str,
) -> None:
    """Start Flower's simulation and run ``serve`` as its ServerApp.

    Args:
        serve: the server's whole run.
        run_config: every client's.
        clients: virtual clients.
        workers: actors, where Ray is started here; a cluster has one for each of its cores.
        clients_per_message: 1: a Flower node and a message for each client, as ``flwr run`` has it;
            otherwise as ``PackedGrid`` has it, on as few nodes as carry a cohort.
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
    arguments: dict[str, Any] = {"address": ray_address} if ray_address else {"num_cpus": workers}
    ray.init(
        runtime_env={"env_vars": environment},
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        **arguments,
    )
    app: ClientApp = ConfiguredClientApp(run_config)
    nodes = clients
    if clients_per_message != 1:
        app = PackedClientApp(clients, run_config)
        packs = (
            -(-int(run_config["cohort-size"]) // clients_per_message) if clients_per_message else 0
        )
        nodes = min(clients, max(_actors(), packs))
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        if clients_per_message == 1:
            serve(grid)
            return
        packed = PackedGrid(grid, nodes, clients, clients_per_message)
        _wait_for(packed)
        serve(packed)

    run_simulation(
        server_app=server_app,
        client_app=app,
        num_supernodes=nodes,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )


def _wait_for(grid: PackedGrid) -> None:
    """Return once Flower's nodes are there, on which nobody waits by registering clients."""
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while not grid.get_node_ids():
        if time.monotonic() > deadline:
            raise RuntimeError(f"Flower's nodes did not start in {LONGEST_WAIT_SECONDS:g} s")
        time.sleep(0.05)


def _actors() -> int:
    """Return how many actors of one core Flower will start on Ray's machines."""
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return sum([int(node["Resources"].get("CPU", 0)) for node in nodes])
