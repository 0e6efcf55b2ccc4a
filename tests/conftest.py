"""A whole small run in this process, for every test that needs one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# One thread a process, before anything loads OpenMP: more of them spin against each other.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import pytest
from flwr.supercore.task_identity import TaskIdentity
from rich.console import Console

from client.app import app as client_app
from fed_gswgan.config import Config
from fed_gswgan.device.virtual_clients import SIMULATION_FOLDER, VirtualClients
from server.app import run_server
from simulations.in_process_grid import InProcessGrid
from simulations.virtual_nodes import VirtualNodes

SMALL: dict[str, bool | int | float | str] = {
    "dataset": "digits",
    "classes": "digits",
    "max-clients": 4,
    "cohort-size": 3,
    "batch-size": 8,
    "critic-width": 16,
    "critic-steps": 2,
    "generator-width": 8,
    "rounds": 4,
    "noise-source": "seeded",
    "samples-every": 100,
    "evaluation-samples": 0,
}

SmallRun = Callable[..., Path]


@pytest.fixture
def task_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process the identity that Flower's messages are made with."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def small_settings() -> dict[str, bool | int | float | str]:
    """Return settings of a run of a second: 4 real blocks of digits, narrow networks."""
    return dict(SMALL)


@pytest.fixture
def small_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Return a function that runs in this process and returns the run's folder.

    ``interrupted``, ``app`` and ``grid_type`` replace those of the run; all else is a setting.
    """

    def run(
        name: str = "run",
        interrupted: Callable[[], bool] = lambda: False,
        app: Any = client_app,
        grid_type: type[InProcessGrid] = InProcessGrid,
        **overrides: bool | int | float | str,
    ) -> Path:
        folder = tmp_path / name
        virtual_clients = VirtualClients(folder / "clients")
        monkeypatch.setenv(SIMULATION_FOLDER, str(virtual_clients.folder))
        settings = {**SMALL, "output-dir": str(folder)}
        settings |= {key.replace("_", "-"): value for key, value in overrides.items()}
        config = Config.from_run_config(settings)
        clients = config.data.virtual_clients or config.data.max_clients
        grid = grid_type(app, clients, config.to_run_config())
        console = Console(file=open(os.devnull, "w"))  # noqa: SIM115
        nodes = VirtualNodes(clients) if config.data.virtual_clients else None
        return run_server(grid, config, virtual_clients, "in-process", interrupted, console, nodes)

    return run


@pytest.fixture
def fed_gswgan_data() -> Path:
    """Return the folder of the real data sets, or skip, saying so."""
    folder = os.environ.get("FED_GSWGAN_DATA")
    if not folder:
        pytest.skip("FED_GSWGAN_DATA is not set: no real Fed-EMNIST here")
    return Path(folder)
