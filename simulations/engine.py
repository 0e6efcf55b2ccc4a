"""What runs the clients of a simulation: Ray or processes of our own, and how many at a time."""

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from flwr.serverapp import Grid

from fed_gswgan.flat_table import Value
from fed_gswgan.validation import at_least, one_of

RUNTIMES = ("ray", "in-process")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Decides how long a round takes and nothing else, so it is no setting of the run.

    Attributes:
        runtime: ``ray`` or ``in-process``.
        workers: processes that serve clients, of one thread each; 1 means this very process, but
            on Ray; 0: one for each core.
        clients_per_message: on Ray: clients in one Flower message; 0: a cohort split evenly over
            the workers, 1: none share one. Each is clipped, noised and charged by itself.
        ray_address: of a running cluster; empty starts Ray on this machine.
    """

    runtime: str = "ray"
    workers: int = 0
    clients_per_message: int = 0
    ray_address: str = ""

    def __post_init__(self) -> None:
        one_of(RUNTIMES, runtime=self.runtime)
        at_least(0, workers=self.workers)
        at_least(0, clients_per_message=self.clients_per_message)
        if self.runtime != "ray" and self.clients_per_message:
            raise ValueError(
                f"clients-per-message={self.clients_per_message} must be left out with runtime="
                f"{self.runtime}: only Ray sends messages"
            )
        if self.runtime == "ray" and self.ray_address and self.workers:
            raise ValueError(
                f"workers={self.workers} must be left out with ray-address={self.ray_address}: "
                "the cluster has as many as it has cores"
            )

    def run(
        self, serve: Callable[[Grid], None], run_config: dict[str, Value], clients: int
    ) -> None:
        """Call ``serve``, the server's whole run, with a Grid of so many virtual clients."""
        workers = self.workers or available_cores()
        if self.runtime == "ray":
            from simulations.ray_runtime import run_on_ray

            run_on_ray(
                serve, run_config, clients, workers, self.clients_per_message, self.ray_address
            )
        elif min(workers, clients) == 1:
            from client.app import app as client_app
            from simulations.in_process_grid import InProcessGrid

            serve(InProcessGrid(client_app, clients, run_config))
        else:
            from simulations.worker_grid import WorkerGrid

            workers = min(workers, clients)
            with closing(WorkerGrid(clients, run_config, workers)) as grid:
                serve(grid)

    @property
    def nodes_are_partitions(self) -> bool:
        """Tell whether a client's node follows from its partition, so that nobody need be asked."""
        return self.runtime != "ray" or self.clients_per_message != 1

    def options(self) -> list[str]:
        """Return the command-line options that ask for this engine."""
        words = ["--workers", str(self.workers)] if self.workers else []
        if self.clients_per_message:
            words += ["--clients-per-message", str(self.clients_per_message)]
        words += ["--ray-address", self.ray_address] if self.ray_address else []
        return [*words, "--runtime", self.runtime]


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
