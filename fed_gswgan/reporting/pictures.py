"""Pictures: a grid of samples, and epsilon over the population."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fed_gswgan.evaluation.samplers import Sampler

COLUMNS = 12


def sample_grid(sampler: Sampler, num_classes: int, seed: int) -> Tensor:
    """Return grid_CHW, float32 in [0, 1], a row for each class; grey samples as ink on paper."""
    from torchvision.utils import make_grid

    labels = torch.arange(num_classes).repeat_interleave(COLUMNS)
    samples = sampler(labels, seed)
    shown = 1 - samples if samples.shape[1] == 1 else samples
    grid: Tensor = make_grid(shown, nrow=COLUMNS, padding=2, pad_value=1.0)
    return grid


def save_grid(grid_CHW: Tensor, path: Path) -> None:
    """Write the grid as a PNG."""
    from torchvision.utils import save_image

    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(grid_CHW, path)


CURVES = {
    "local_sample": "local, clipping sample",
    "local_message": "local, clipping message",
    "secure_aggregation": "secure aggregation",
    "central": "central",
}
LANDMARKS = (1.0, 10.0)


def save_reachable_plot(rows: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Draw epsilon over population, a curve for each trust model, as a PNG.

    Args:
        rows: fields of ``Reachable``; an epsilon of 0 has no place on a log axis and is left out.
        title: says what was the same for all.
        path: its folder is made.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, label in CURVES.items():
        drawn = [(row["population"], row[name]) for row in rows if row[name] > 0]
        axes.plot(*zip(*drawn, strict=True), marker="o", markersize=4, label=label)
    for epsilon in LANDMARKS:
        axes.axhline(epsilon, color="gray", linewidth=0.8, linestyle="--")
    axes.set(xscale="log", yscale="log", xlabel="population", ylabel="epsilon")
    axes.set_title(title, fontsize="medium")
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, format="png")
