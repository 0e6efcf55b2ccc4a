"""The paper's first table: every centralised method at a true epsilon, on one data set.

A cell of the table is a method, an epsilon and a seed.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from pydantic import TypeAdapter
from rich.console import Console
from safetensors.torch import load, save

from fed_gswgan.accounting.trust import epsilon_of
from fed_gswgan.baselines.registry import METHODS, PRESETS
from fed_gswgan.baselines.training import TrainedBaseline
from fed_gswgan.data.whole_dataset import open_whole_dataset
from fed_gswgan.evaluation.distances import metric_size
from fed_gswgan.evaluation.scores import kept_score_classifier
from fed_gswgan.evaluation.table import RealScores, real_scores, table_judge, table_metrics
from fed_gswgan.optional_extra import needs_extra
from fed_gswgan.reporting.pictures import drawn_for_picture, save_curves, save_side_by_side
from fed_gswgan.reporting.run_folder import replace_file
from fed_gswgan.validation import at_least, between, one_of, positive
from simulations.tables.cells import run_cells
from simulations.tables.published import PUBLISHED_TABLE1
from simulations.tables.results import Column, ResultsFolder, Row, spreads, write_tables

# Constant, so that every row of a table has the same judge and the same reference images.
EVALUATION_SEED = 0
REAL = "real"
JUDGE = "judge.safetensors"  # weights of the inception score's classifier
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
COLUMNS: tuple[Column, ...] = (
    ("method", "method", None),
    ("IS", "inception_score", 2),
    ("Fréchet", "frechet_distance", 1),
    ("kernel", "kernel_distance", 4),
    ("MLP acc.", "mlp_accuracy", 3),
    ("CNN acc.", "cnn_accuracy", 3),
    ("Avg acc.", "average_accuracy", 3),
    ("Calibrated acc.", "calibrated_accuracy", 3),
    ("ratio of means", "ratio_of_mean_accuracies", 3),
    ("epsilon", "epsilon", 2),
    ("relation", "neighboring_relation", None),
    ("epsilon, as published", "published_epsilon", 2),
    ("seeds", "seeds", None),
    ("s to train", "training_seconds", 0),
)


@dataclass(frozen=True, kw_only=True)
class Table1:
    """Rows of the first table, and the folder that keeps them.

    Attributes:
        dataset: ``mnist`` or ``fashion-mnist``.
        data_dir: folder of the data set; None: FED_GSWGAN_DATA.
        preset: ``small`` or ``full``, of methods and metrics alike.
        methods: names of the registry; real images are always a row.
        epsilons: true ones of a record, at most; every method runs at each.
        delta: in (0, 1).
        seeds: number of runs of every method.
        workers: number of cells at a time; each has one core.
    """

    dataset: str
    data_dir: Path | None
    preset: str
    methods: tuple[str, ...]
    epsilons: tuple[float, ...]
    delta: float
    seeds: int
    folder: Path
    workers: int

    def __post_init__(self) -> None:
        one_of(PUBLISHED_TABLE1, dataset=self.dataset)
        one_of(PRESETS, preset=self.preset)
        at_least(1, epsilons=len(self.epsilons))
        for epsilon in self.epsilons:
            positive(epsilon=epsilon)
        between(0, 1, delta=self.delta)
        at_least(1, seeds=self.seeds)
        at_least(1, workers=self.workers)
        for name in self.methods:
            one_of(METHODS, methods=name)
            if METHODS[name].dataset not in ("", self.dataset):
                raise ValueError(
                    f"methods={name} must be left out for dataset={self.dataset}: its prior has "
                    f"the classes of {METHODS[name].dataset}"
                )
            with needs_extra("compare", f"methods={name}"):
                METHODS[name].imported()  # now, not after the first cell
        for values in (self.methods, self.epsilons):
            if len(set(values)) < len(values):
                raise ValueError(f"{', '.join(map(str, values))}: each may be named once")

    def run(self, console: Console) -> dict[str, Any]:
        """Run the cells that are missing, write the tables after each, and return the rows.

        Raises:
            ValueError: the folder holds another comparison.
            RuntimeError: some cell failed.
        """
        ResultsFolder(self.folder).open(self._settings())
        real, *others = self._cells()  # real images come first: they calibrate the others
        for cells in ([real], others):
            run_cells(cells, self.workers, console, self._write)
        return self._write()

    def _settings(self) -> dict[str, Any]:
        """Return what all comparisons in one folder share."""
        return {"table": 1, "dataset": self.dataset, "preset": self.preset, "delta": self.delta}

    def _cells(self) -> list["Cell"]:
        """Return the cell of real images and all others, first seeds first."""
        return [Cell(self)] + [
            Cell(self, name, epsilon, seed)
            for seed in range(self.seeds)
            for epsilon in (0.0, *self.epsilons)
            for name in self.methods
            if (epsilon > 0 if METHODS[name].private else epsilon == seed == 0)
        ]

    def _write(self) -> dict[str, Any]:
        """Write tables and pictures of the finished cells, and return the rows."""
        results = ResultsFolder(self.folder)
        rows: dict[tuple[str, float], list[dict[str, Any]]] = {}
        pictures = {}
        for cell in self._cells():
            if cell.finished:
                rows.setdefault((cell.method, cell.epsilon), []).append(results.read(cell.name))
                samples = results.samples(cell.name)
                drawn = cell.epsilon in (0.0, self.epsilons[-1]) and cell.seed == 0
                if samples is not None and drawn:
                    pictures[f"{_title(cell.method)}, epsilon {cell.epsilon:g}"] = samples
        found = {
            **self._settings(),
            "rows": [_row(cells, self.dataset) for cells in rows.values()],
            "notes": _notes(rows.values()),
        }
        write_tables(found, self.folder, COLUMNS, f"{self.dataset}, {self.preset}")
        _save_accuracies(found["rows"], self.folder / "quality-against-epsilon.png")
        if pictures:
            save_side_by_side(pictures, self.folder / "samples.png")
        return found


@dataclass(frozen=True)
class Cell:
    """A method at one epsilon from one seed; ``real`` is the row of real images."""

    table: Table1
    method: str = REAL
    epsilon: float = 0.0
    seed: int = 0

    @property
    def name(self) -> str:
        """Name of the cell's files; real images cost no epsilon."""
        epsilon = "" if self.method == REAL else f"-epsilon{self.epsilon!r}"
        return f"{self.method}{epsilon}-{self.seed}"

    @property
    def finished(self) -> bool:
        """Whether the folder holds the result under these very settings."""
        return ResultsFolder(self.table.folder).finished(self.name, self.settings())

    def settings(self) -> dict[str, Any]:
        """Return the settings of metrics and method, which the preset names."""
        preset = self.table.preset
        found: dict[str, Any] = {"metric_size": asdict(metric_size(preset, DEVICE))}
        if self.method != REAL:
            settings = METHODS[self.method].settings(preset)
            found["method"] = TypeAdapter(type(settings)).dump_python(settings, mode="json")
        return found

    def run(self) -> None:
        """Train and measure, and keep the result in the folder of the comparison."""
        torch.set_num_threads(1)  # one thread a process: more of them spin against each other
        results = ResultsFolder(self.table.folder)
        measured = _measure(self, results, results.progress_log(self.name))
        named = {"method": self.method, "seed": self.seed}
        results.keep(self.name, {**named, **measured, "settings": self.settings()})


def _measure(cell: Cell, results: ResultsFolder, log: Callable[[str], None]) -> dict[str, Any]:
    table, size = cell.table, metric_size(cell.table.preset, DEVICE)
    data = open_whole_dataset(table.dataset, table.data_dir).to(DEVICE)
    if cell.method == REAL:
        judge = table_judge(data, size, EVALUATION_SEED, log)
        weights = {name: value.cpu() for name, value in judge.state_dict().items()}
        replace_file(table.folder / JUDGE, save(weights))
        return {"metrics": real_scores(data, size, EVALUATION_SEED, log, judge).to_dict()}
    real = RealScores.from_dict(results.read(f"{REAL}-0")["metrics"])
    weights = load((table.folder / JUDGE).read_bytes())
    judge = kept_score_classifier(size.score_classifier, data.spec, weights).to(DEVICE)
    started = time.perf_counter()
    trained: TrainedBaseline = METHODS[cell.method].train(
        table.preset,
        images_NCHW=data.train_images_NCHW,
        labels_N=data.train_labels_N,
        num_classes=len(data.class_names),
        epsilon=cell.epsilon,
        delta=table.delta,
        seed=cell.seed,
        progress=lambda share: log(f"training: {share:.0%}"),
    )
    seconds = time.perf_counter() - started
    metrics = table_metrics(trained.sampler, data, size, EVALUATION_SEED, real, log, judge)
    drawn = drawn_for_picture(trained.sampler, len(data.class_names), DEVICE)
    results.keep_samples(cell.name, drawn)
    return {
        "epsilon": epsilon_of(trained.releases, table.delta) if trained.releases else 0.0,
        "delta": table.delta,
        "neighboring_relation": str(trained.releases[0].relation) if trained.releases else "none",
        "releases": [release.to_dict() for release in trained.releases],
        "published_epsilon": trained.published_epsilon,
        "published_accounting": trained.published_accounting,
        "training_seconds": round(seconds, 1),
        "metrics": metrics.to_dict(),
    }


def _title(method: str) -> str:
    return "real images" if method == REAL else METHODS[method].title


def _row(cells: Sequence[Row], dataset: str) -> dict[str, Any]:
    """Return the row of a method at one epsilon, over its seeds."""
    first = cells[0]
    row: dict[str, Any] = {"method": _title(first["method"]), "seeds": len(cells)}
    row |= spreads(COLUMNS, cells)
    if first["method"] != REAL:
        row["epsilon"] = max(cell["epsilon"] for cell in cells)
        row["neighboring_relation"] = first["neighboring_relation"]
        if None not in (published := [cell["published_epsilon"] for cell in cells]):
            row["published_epsilon"] = max(published)
        row["published_accounting"] = first["published_accounting"]
        row["training_seconds"] = mean(cell["training_seconds"] for cell in cells)
    row["published"] = PUBLISHED_TABLE1[dataset].get(first["method"], {})
    return row


def _save_accuracies(rows: Sequence[Row], path: Path) -> None:
    """Draw the CNN accuracy of each method against its true epsilon; real images are a line."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    level = None
    for row in sorted(rows, key=lambda row: row.get("epsilon", 0.0)):
        if "epsilon" not in row:
            level = (row["method"], row["cnn_accuracy"])
            continue
        title = f"{row['method']} ({row['neighboring_relation']})"
        epsilons, accuracies = curves.setdefault(title, ([], []))
        epsilons.append(row["epsilon"])
        accuracies.append(row["cnn_accuracy"])
    save_curves(path, curves, "true epsilon", "CNN accuracy", y_scale="linear", level=level)


def _notes(rows: Iterable[Sequence[Row]]) -> list[str]:
    """Return the sentences below the table, each once."""
    notes: list[str] = []
    for cells in rows:
        metrics = cells[0]["metrics"]
        notes += [
            f"distances in features of: {metrics['features']}",
            f"inception score's judge: {metrics['score_classifier']}, "
            f"{metrics['score_classifier_accuracy']:.1%} on the test images",
            f"{metrics['classifier_samples']} samples train the classifiers",
            f"{_title(cells[0]['method'])}: {metrics['split']}",
            *metrics["notes"],
        ]
    return list(dict.fromkeys(notes))
