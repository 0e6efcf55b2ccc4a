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
    "epsilon",
    "epsilon_of_run",
    "evaluate",
    "load_generator",
    "load_settings",
    "run",
    "sample",
]


def load_settings(path: str | Path | None = None, **overrides: Any) -> dict[str, Any]:
    """Return the flat settings of a run, checked: defaults, then a TOML file, then overrides.

    Args:
        path: of a TOML file, one key a line; None: defaults alone.
        overrides: keys with underscores in place of hyphens.

    Raises:
        ValueError: an unknown key, with the nearest known one, or a value out of range.

    >>> load_settings(rounds=3, noise_stddev=2.14)["cohort-size"]
    14
    >>> load_settings(rouns=3)
    Traceback (most recent call last):
    ValueError: rouns: no such setting; did you mean rounds?
    """
    import tomllib

    from fed_gswgan.config import Config

    table = tomllib.loads(Path(path).read_text()) if path else {}
    table |= {name.replace("_", "-"): value for name, value in overrides.items()}
    return {**Config.from_table(table).to_table(), **table}


def run(
    settings: dict[str, Any],
    output: str | Path,
    runtime: str = "in-process",
    workers: int = 1,
    quiet: bool = False,
) -> Path:
    """Run a simulation to its end and return its folder; needs a checkout of the project.

    Args:
        settings: of ``load_settings``, or any flat table.
        output: folder of the run, not there yet.
        runtime: ``in-process`` or ``ray``.
        workers: processes that serve clients; 1 in-process: none but this.
        quiet: whether to print nothing.

    Raises:
        RuntimeError: the run failed or was interrupted; what it printed says why.

    >>> settings = load_settings(rounds=1, cohort_size=2, max_clients=2, critic_width=8,
    ...     batch_size=4, generator_width=4, noise_stddev=2.14, evaluation_samples=0)
    >>> sorted(path.name for path in run(settings, FOLDER, quiet=True).glob("*.json"))
    ['run.json', 'summary.json']
    """
    import importlib

    status = importlib.import_module("simulations.run").simulate(
        settings, output=str(output), runtime=runtime, workers=workers, quiet=quiet
    )
    if status != 0:
        raise RuntimeError(f"the run in {output} ended with status {status}")
    return Path(output)


def load_generator(run: str | Path) -> "TrainedGenerator":
    """Return what a run has come to: sampler, data specification, round and settings.

    Raises:
        FileNotFoundError: the folder holds no run, or no checkpoint yet.
        ValueError: the checkpoint is damaged, or of an earlier version.

    >>> load_generator(FOLDER).spec.image_shape
    (1, 28, 28)
    """
    from fed_gswgan.reporting.trained_generator import load_generator

    return load_generator(Path(run))


def sample(run: str | Path, labels: Sequence[int], seed: int = 0) -> "np.ndarray":
    """Return samples of a run's generator, float32 (N, C, H, W) in [0, 1], ink 1.

    Args:
        run: its folder.
        labels: the class of each sample.
        seed: of the latents.

    >>> sample(FOLDER, [3, 7], seed=1).shape
    (2, 1, 28, 28)
    """
    import torch

    samples: np.ndarray = load_generator(run).sampler(torch.tensor(labels), seed).numpy()
    return samples


def evaluate(run: str | Path, samples: int = 4000, seed: int = 0) -> dict[str, Any]:
    """Return the metrics of a run's generator on held-out images, by name.

    Args:
        run: its folder; the data set must be there.
        samples: drawn from the generator.
        seed: of the metrics.

    >>> 0 <= evaluate(FOLDER, samples=20)["label_agreement"] <= 1
    True
    """
    from fed_gswgan.data.registry import open_source
    from fed_gswgan.evaluation.report import evaluate_on_held_out

    trained = load_generator(run)
    source = open_source(trained.config.shared)
    return evaluate_on_held_out(trained.sampler, source, samples, seed).to_dict()


def epsilon_of_run(run: str | Path) -> float:
    """Return epsilon of the user who spent most, by the clients' ledgers in a run's folder.

    >>> round(epsilon_of_run(FOLDER), 2)
    9.2
    """
    from fed_gswgan.reporting.explanation import worst_user
    from fed_gswgan.reporting.run_folder import CLIENTS, read_run

    return worst_user(Path(run) / CLIENTS, read_run(Path(run)).config.shared).epsilon


def epsilon(
    releases: int,
    noise_stddev: float,
    rows: int = 1,
    delta: float = 1e-5,
    relation: str = "replace-one",
    honest: int = 1,
) -> float:
    """Return the exact epsilon of a user after equal Gaussian releases.

    Args:
        releases: how many.
        noise_stddev: on one coordinate of one release, in units of the clipping bound.
        rows: rows of a release that are clipped by themselves; 1: the whole release is.
        delta: in (0, 1).
        relation: ``replace-one`` or ``zero-out``.
        honest: clients whose noise is in every sum the server sees, under secure aggregation.

    Source: Balle and Wang, arXiv 1805.06530, theorem 8.

    >>> round(epsilon(releases=240, noise_stddev=2.14, rows=32))
    3702
    """
    import math

    from fed_gswgan.privacy.gaussian import gaussian_epsilon
    from fed_gswgan.privacy.mechanism import Event, NeighboringRelation

    event = Event(rows=rows, numbers=1, clipping_bound=1.0, noise_stddev=noise_stddev)
    mu = event.mu(NeighboringRelation(relation)) * math.sqrt(releases / honest)
    return gaussian_epsilon(mu, delta)
