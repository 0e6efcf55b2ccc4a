"""Cells of one method, over seeds, as a row of a table: means and standard deviations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

# Column title, key of a cell's metrics, digits.
METRIC_COLUMNS: tuple[tuple[str, str, int], ...] = (
    ("IS", "inception_score", 2),
    ("Fréchet", "frechet_distance", 1),
    ("kernel", "kernel_distance", 4),
    ("MLP acc.", "mlp_accuracy", 3),
    ("CNN acc.", "cnn_accuracy", 3),
    ("Avg acc.", "average_accuracy", 3),
    ("Calibrated acc.", "calibrated_accuracy", 3),
    ("ratio of means", "ratio_of_mean_accuracies", 3),
)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure over seeds.

    Attributes:
        mean: of all seeds.
        deviation: sample standard deviation; None of a single seed.
    """

    mean: float
    deviation: float | None

    def text(self, digits: int) -> str:
        """Return ``mean ± deviation``."""
        written = f"{self.mean:.{digits}f}"
        if self.deviation is None:
            return written
        return f"{written} ± {self.deviation:.{digits}f}"


def spread(values: Sequence[float]) -> Spread:
    """Return mean and deviation of one value a seed."""
    return Spread(mean=mean(values), deviation=stdev(values) if len(values) > 1 else None)


def metric_spreads(cells: Sequence[Mapping[str, Any]]) -> dict[str, Spread]:
    """Return every metric that the cells of one method have, by its key."""
    values = {key: [cell["metrics"].get(key) for cell in cells] for _, key, _ in METRIC_COLUMNS}
    return {key: spread(found) for key, found in values.items() if None not in found}
