"""One cell of a table: a method, an epsilon and a seed, trained, measured and kept in one piece."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fed_gswgan.accounting.trust import epsilon_of
from fed_gswgan.baselines.registry import METHODS
from fed_gswgan.baselines.training import TrainedBaseline
from fed_gswgan.comparison.results_folder import ResultsFolder
from fed_gswgan.comparison.sample_pictures import drawn_for_picture
from fed_gswgan.data.whole_dataset import WholeDataset, open_whole_dataset
from fed_gswgan.evaluation.distances import MetricSize, metric_size
from fed_gswgan.evaluation.scores import kept_score_classifier
from fed_gswgan.evaluation.table import RealScores, real_scores, table_judge, table_metrics

# Constant, so that every row of a table has the same judge and the same reference images.
EVALUATION_SEED = 0
REAL = "real"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A method, an epsilon and a seed; ``real`` is the row of real images.

    Attributes:
        dataset: ``mnist`` or ``fashion-mnist``.
        data_dir: where it lies; None: FED_GSWGAN_DATA says.
        preset: ``small`` or ``full``, of methods and metrics alike.
        epsilon: the true one that the method may spend on a record.
        delta: of that epsilon.
        method: a name of the registry, or ``real``.
        seed: of the training.
        device: of all networks, ``cpu`` or ``cuda``.
    """

    dataset: str
    data_dir: Path | None
    preset: str
    epsilon: float
    delta: float
    method: str
    seed: int
    device: str

    @property
    def name(self) -> str:
        """Of its files; real images cost no epsilon."""
        if self.method == REAL:
            return f"{REAL}-{self.seed}"
        return f"{self.method}-epsilon{self.epsilon!r}-{self.seed}"

    @property
    def size(self) -> MetricSize:
        """Of its metrics."""
        return metric_size(self.preset, torch.device(self.device))

    def settings(self) -> dict[str, Any]:
        """Return all that decides its figures beside data set, epsilon, delta and seed."""
        found: dict[str, Any] = {"metric_size": asdict(self.size)}
        if self.method != REAL:
            found["method"] = asdict(METHODS[self.method].settings(self.preset))
        return found


def run_cell(cell: Cell, folder: Path) -> str:
    """Train and measure one cell, keep it in the folder, and return its name."""
    torch.set_num_threads(1)  # one thread a process: more of them spin against each other
    results = ResultsFolder(folder)
    data = open_whole_dataset(cell.dataset, cell.data_dir).to(torch.device(cell.device))
    with results.progress_log(cell.name) as log:
        measured = (
            _real(cell, data, results, log)
            if cell.method == REAL
            else _method(cell, data, results, log)
        )
    results.keep(cell.name, {**measured, "settings": cell.settings()})
    return cell.name


def _real(cell: Cell, data: WholeDataset, results: ResultsFolder, log: Any) -> dict[str, Any]:
    judge = table_judge(data, cell.size, EVALUATION_SEED, log)
    results.keep_judge({name: value.cpu() for name, value in judge.state_dict().items()})
    scores = real_scores(data, cell.size, EVALUATION_SEED, log, judge)
    return {"method": REAL, "seed": cell.seed, "metrics": scores.to_dict()}


def _method(cell: Cell, data: WholeDataset, results: ResultsFolder, log: Any) -> dict[str, Any]:
    method = METHODS[cell.method]
    size = cell.size
    real = RealScores.from_dict(results.read(f"{REAL}-0")["metrics"])
    judge = kept_score_classifier(size.score_classifier, data.spec, results.judge())
    started = time.perf_counter()
    trained: TrainedBaseline = method.train(
        cell.preset,
        images_NCHW=data.train_images_NCHW,
        labels_N=data.train_labels_N,
        num_classes=len(data.class_names),
        epsilon=cell.epsilon,
        delta=cell.delta,
        seed=cell.seed,
        progress=lambda share: log(f"training: {share:.0%}"),
    )
    training_seconds = time.perf_counter() - started
    metrics = table_metrics(
        trained.sampler, data, size, EVALUATION_SEED, real, log, judge.to(cell.device)
    )
    drawn = drawn_for_picture(trained.sampler, len(data.class_names), cell.device)
    results.keep_samples(cell.name, drawn)
    return {
        "method": cell.method,
        "seed": cell.seed,
        "epsilon": epsilon_of(trained.releases, cell.delta),
        "delta": cell.delta,
        "neighboring_relation": str(trained.releases[0].relation),
        "releases": [release.to_dict() for release in trained.releases],
        "published_epsilon": trained.published_epsilon,
        "published_accounting": trained.published_accounting,
        "training_seconds": round(training_seconds, 1),
        "metrics": metrics.to_dict(),
    }
