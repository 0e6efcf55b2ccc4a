"""The paper's first table: every centralised method at a true epsilon, on one data set."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from fed_gswgan.baselines.registry import METHODS, SEEDS
from fed_gswgan.comparison.cells import REAL, Cell, run_cell
from fed_gswgan.comparison.curves import save_quality_against_epsilon
from fed_gswgan.comparison.parallel import run_cells
from fed_gswgan.comparison.published import PUBLISHED_TABLE1
from fed_gswgan.comparison.results_folder import ResultsFolder
from fed_gswgan.comparison.rows import METRIC_COLUMNS, metric_spreads, spread
from fed_gswgan.comparison.sample_pictures import save_side_by_side
from fed_gswgan.comparison.tables import write_tables
from fed_gswgan.optional_extra import needs_extra
from fed_gswgan.validation import at_least, between, one_of, positive


@dataclass(frozen=True, kw_only=True)
class Table1:
    """What is compared, and where it is kept.

    Attributes:
        dataset: ``mnist`` or ``fashion-mnist``.
        data_dir: where it lies; None: FED_GSWGAN_DATA says.
        preset: ``small`` or ``full``.
        methods: names of the registry.
        epsilons: true ones; every method runs at each.
        delta: likewise.
        seeds: of every method; 0: as many as its preset asks for.
        folder: of the comparison.
        workers: cells at a time.
        device: that they run on, ``cpu`` or ``cuda``; a cell on ``cpu`` has one core.
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
    device: str

    def __post_init__(self) -> None:
        one_of(("mnist", "fashion-mnist"), dataset=self.dataset)
        one_of(("small", "full"), preset=self.preset)
        at_least(1, epsilons=len(self.epsilons))
        for epsilon in self.epsilons:
            positive(epsilon=epsilon)
        between(0, 1, delta=self.delta)
        at_least(0, seeds=self.seeds)
        at_least(1, workers=self.workers)
        one_of(("cpu", "cuda"), device=self.device)
        for name in self.methods:
            one_of(METHODS, methods=name)
            with needs_extra("compare", f"methods={name}"):
                # Now, not after the first cell.
                METHODS[name].imported()
        for values in (self.methods, self.epsilons):
            if len(set(values)) < len(values):
                raise ValueError(f"{', '.join(map(str, values))}: each may be named once")

    def run(self, console: Console) -> dict[str, Any]:
        """Run what is not finished, write the tables anew, and return the rows.

        Raises:
            ValueError: the folder is of another comparison.
            CellsFailed: some cell failed.
        """
        results = ResultsFolder(self.folder)
        results.open(self._settings())
        first, others = self._cells()
        for cells in ([first], others):
            missing = [cell for cell in cells if not results.finished(cell.name, cell.settings())]
            if missing:
                run_cells(
                    run_cell, missing, self.folder, self.workers, console,
                    on_finished=lambda: self._write(results),
                )  # fmt: skip
        return self._write(results)

    def _settings(self) -> dict[str, Any]:
        """Return what two runs into one folder must share."""
        return {
            "table": 1,
            "dataset": self.dataset,
            "preset": self.preset,
            "delta": self.delta,
        }

    def _cells(self) -> tuple[Cell, list[Cell]]:
        """Return the row of real images, which calibrates, and all others, first seeds first."""
        real = Cell(
            dataset=self.dataset, data_dir=self.data_dir, preset=self.preset, epsilon=0.0,
            delta=self.delta, method=REAL, seed=0, device=self.device,
        )  # fmt: skip
        others = [
            replace(real, method=name, seed=seed, epsilon=epsilon)
            for epsilon in self.epsilons
            for name in self.methods
            for seed in range(self.seeds or SEEDS)
        ]
        return real, sorted(others, key=lambda cell: cell.seed)

    def _write(self, results: ResultsFolder) -> dict[str, Any]:
        """Write tables and pictures of what is finished of this table, and return the rows."""
        real, others = self._cells()
        finished = [
            cell for cell in [real, *others] if results.finished(cell.name, cell.settings())
        ]
        by_row: dict[tuple[str, float], list[dict[str, Any]]] = {}
        for cell in finished:
            by_row.setdefault((cell.method, cell.epsilon), []).append(results.read(cell.name))
        rows = [self._row(name, cells) for (name, _), cells in by_row.items()]
        found = {**self._settings(), "rows": rows, "notes": _notes(by_row.values())}
        write_tables(found, results.folder, _columns(), f"{self.dataset}, {self.preset}")
        save_quality_against_epsilon(rows, results.folder / "quality-against-epsilon.png")
        pictures = {
            f"{_title(cell.method)}, epsilon {cell.epsilon:g}": samples
            for cell in finished
            if cell.seed == 0
            and cell.epsilon == self.epsilons[-1]
            and (samples := results.samples(cell.name)) is not None
        }
        if pictures:
            save_side_by_side(pictures, results.folder / "samples.png")
        return found

    def _row(self, name: str, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        row: dict[str, Any] = {"method": _title(name), "seeds": len(cells)}
        for key, found in metric_spreads(cells).items():
            row[key], row[f"{key}_deviation"] = found.mean, found.deviation
        if name != REAL:
            row["epsilon"] = max(cell["epsilon"] for cell in cells)
            row["neighboring_relation"] = cells[0]["neighboring_relation"]
            row["published_epsilon"] = max(cell["published_epsilon"] for cell in cells)
            row["published_accounting"] = cells[0]["published_accounting"]
            row["training_seconds"] = spread([cell["training_seconds"] for cell in cells]).mean
        row["published"] = PUBLISHED_TABLE1[self.dataset].get(name, {})
        return row


def _title(name: str) -> str:
    return "real images" if name == REAL else METHODS[name].title


def _columns() -> tuple[tuple[str, str, int | None], ...]:
    """Return title, key and digits of every column; a deviation belongs to its mean."""
    return (
        ("method", "method", None),
        *METRIC_COLUMNS,
        ("epsilon", "epsilon", 2),
        ("relation", "neighboring_relation", None),
        ("epsilon, as published", "published_epsilon", 2),
        ("seeds", "seeds", None),
        ("s to train", "training_seconds", 0),
    )


def _notes(rows: Iterable[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return what has to be known of the figures, each sentence once."""
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
