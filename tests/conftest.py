"""A whole small run in this process, for every test that needs one."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

# One thread a process, before anything loads OpenMP: more of them spin against each other.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import pytest
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity
from rich.console import Console

from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import spec_of
from fed_gswgan.data.registry import open_source
from fed_gswgan.device.shards import SIMULATION_FOLDER
from fed_gswgan.evaluation import classifier
from fed_gswgan.field import adapt
from fed_gswgan.priors import prior
from server.app import run_server
from simulations.in_process import InProcessGrid

SMALL: dict[str, bool | int | float | str] = {
    "dataset": "digits",
    "classes": "digits",
    "max-clients": 4,
    "cohort-size": 3,
    "batch-size": 8,
    "critic": "mlp",
    "critic-width": 16,
    "critic-steps": 2,
    "generator-width": 8,
    "rounds": 4,
    "noise-stddev": 2.14,
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

    ``interrupted``, ``shards`` and ``grid`` (which wraps the run's Grid) replace those of the run;
    all else is a setting.
    """

    def run(
        name: str = "run",
        interrupted: Callable[[], bool] = lambda: False,
        shards: int = 2,
        grid: Callable[[Grid], Grid] = lambda grid: grid,
        **overrides: bool | int | float | str,
    ) -> Path:
        folder = tmp_path / name
        monkeypatch.setenv(SIMULATION_FOLDER, str(folder / "clients"))
        settings = {**SMALL, "output-dir": str(folder)}
        settings |= {key.replace("_", "-"): value for key, value in overrides.items()}
        config = Config.from_table(settings)
        config = config.with_noise(spec_of(open_source(config.shared)))
        inner = InProcessGrid(shards, config.to_table())
        console = Console(file=open(os.devnull, "w"))  # noqa: SIM115
        clients = folder / "clients"
        return run_server(grid(inner), config, clients, shards, "in-process", interrupted, console)

    return run


@pytest.fixture
def few_drawings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Return a function that sets how many images of a class a pool of drawings has."""
    prior.drawn_pool.cache_clear()
    yield lambda count: monkeypatch.setattr(prior, "MOST_IMAGES", count)
    prior.drawn_pool.cache_clear()


@pytest.fixture
def small_fits(monkeypatch: pytest.MonkeyPatch, few_drawings: Callable[[int], None]) -> None:
    """Make the pool of drawings, and the samples of a step of the fit, few."""
    few_drawings(25)
    monkeypatch.setattr(adapt, "SAMPLES", 20)
    monkeypatch.setattr(adapt, "LEAST_SAMPLES", 2)


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the classifiers of metrics for two steps a class, where their skill is no matter."""
    monkeypatch.setattr(classifier, "STEPS_PER_CLASS", 2)


@pytest.fixture
def fed_gswgan_data() -> Path:
    """Return the folder of the real data sets, or skip, saying so."""
    folder = os.environ.get("FED_GSWGAN_DATA")
    if not folder:
        pytest.skip("FED_GSWGAN_DATA is not set: no real Fed-EMNIST here")
    return Path(folder)
