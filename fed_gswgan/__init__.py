"""Federated GS-WGAN: private synthetic images from data that never leaves its writers.

The functions below are for scripts and notebooks. Each imports what it needs when it is called.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from fed_gswgan.reporting.trained_generator import TrainedGenerator

__all__ = [
    "epsilon", "epsilon_of_run", "evaluate", "load_generator", "load_settings", "run", "sample",
]  # fmt: skip


def load_settings(path: str | Path | None = None, **overrides: Any) -> dict[str, Any]:
    """Return a run's flat settings: defaults, then a TOML file, then overrides (_ stands for -).

    Raises:
        ValueError: an unknown key, with the nearest known one, or a value out of range.

    >>> load_settings(rounds=3, noise_stddev=2.14)["cohort-size"]
    14
    >>> load_settings(rouns=3)
    Traceback (most recent call last):
    ValueError: rouns: no such setting; did you mean rounds?
    """
    from fed_gswgan.config import Config
    from fed_gswgan.settings import read_toml

    table = read_toml(Path(path)) if path else {}
    table |= {name.replace("_", "-"): value for name, value in overrides.items()}
    return {**Config.from_table(table).to_table(), **table}


def run(
    settings: dict[str, Any], output: str | Path, runtime: str = "in-process", workers: int = 1,
    quiet: bool = False,
) -> Path:  # fmt: skip
    """Run a simulation to its end in the folder ``output``, which holds no run yet; return it.

    The runtime is ``in-process`` or ``ray``. So many worker processes serve clients; one worker of
    ``in-process`` is this process.

    Raises:
        OSError, ValueError, ModuleNotFoundError: this is no checkout of the project; or settings,
            data, folder or packages are unfit.
        RuntimeError: the run failed or was interrupted.

    >>> settings = load_settings(rounds=1, cohort_size=2, max_clients=2, fit_steps=2,
    ...     generator_width=4, noise_stddev=2.14, evaluation_samples=0)
    >>> sorted(path.name for path in run(settings, FOLDER, quiet=True).glob("*.json"))
    ['data.json', 'run.json', 'summary.json']
    """
    from rich.console import Console

    from fed_gswgan.cli import simulations
    from fed_gswgan.reporting.progress_bar import bars_on

    console = Console(quiet=quiet)
    with bars_on(console):
        simulation = simulations("run").Simulation.prepared(
            settings, output=str(output), runtime=runtime, workers=workers
        )
        if not simulation.run(console):
            raise RuntimeError(f"interrupted and saved; go on with: {simulation.resumption}")
    return Path(output)


def load_generator(run: str | Path) -> "TrainedGenerator":
    """Return the newest checkpoint of a run: sampler, data specification, round and settings.

    Raises:
        FileNotFoundError: the folder holds no run, or no checkpoint yet.
        ValueError: the checkpoint is damaged, or of an earlier version.

    >>> load_generator(FOLDER).spec.image_shape
    (1, 28, 28)
    """
    from fed_gswgan.reporting.trained_generator import load_generator

    return load_generator(Path(run))


def sample(run: str | Path, labels: Sequence[int], seed: int = 0) -> "np.ndarray":
    """Return a sample of each label from a run's generator: float32 (N, C, H, W) in [0, 1], ink 1.

    Raises:
        ValueError: a label of no class; and what ``load_generator`` raises.

    >>> sample(FOLDER, [3, 7], seed=1).shape
    (2, 1, 28, 28)
    """
    import torch

    trained = load_generator(run)
    if not all(0 <= label < trained.spec.num_classes for label in labels):
        raise ValueError(f"labels={list(labels)} must lie in 0 .. {trained.spec.num_classes - 1}")
    samples: np.ndarray = trained.sampler(torch.tensor(labels), seed).numpy()
    return samples


def evaluate(run: str | Path, samples: int = 4000, seed: int = 0) -> dict[str, Any]:
    """Return metrics of so many samples, by name, on the held-out images of a run's data set.

    >>> 0 <= evaluate(FOLDER, samples=20)["label_agreement"] <= 1
    True
    """
    from fed_gswgan.data.registry import open_source
    from fed_gswgan.evaluation.report import held_out_judge

    trained = load_generator(run)
    judge = held_out_judge(open_source(trained.config.shared), seed)
    return judge.report(trained.sampler, samples).to_dict()


def epsilon_of_run(run: str | Path) -> float:
    """Return epsilon of the user who spent most, by the clients' ledgers in a run's folder.

    >>> round(epsilon_of_run(FOLDER), 2)
    4.05
    """
    from fed_gswgan.reporting.explanation import worst_user
    from fed_gswgan.reporting.run_folder import CLIENTS, read_run

    return worst_user(Path(run) / CLIENTS, read_run(Path(run)).config.shared).epsilon


def epsilon(
    releases: int, noise_stddev: float, rows: int = 1, delta: float = 1e-5,
    relation: str = "replace-one", honest: int = 1,
) -> float:  # fmt: skip
    """Return the exact epsilon of a user after equal Gaussian releases.

    Each release has ``rows`` rows that are clipped one by one (1: clipped as a whole) and noise of
    standard deviation ``noise_stddev`` on a coordinate, in units of the clipping bound. Under
    secure aggregation ``honest`` clients' noise is in every sum that the server sees.

    Source: Balle and Wang, arXiv 1805.06530, theorem 8.

    >>> round(epsilon(releases=240, noise_stddev=2.14, rows=32))
    3702
    """
    from fed_gswgan.privacy.gaussian import gaussian_epsilon
    from fed_gswgan.privacy.mechanism import Event, NeighboringRelation

    event = Event(rows=rows, numbers=1, clipping_bound=1.0, noise_stddev=noise_stddev)
    mu = event.mu(NeighboringRelation(relation)) * (releases / honest) ** 0.5
    return gaussian_epsilon(mu, delta)
