"""Pictures: grids of samples, alone and side by side, and curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.evaluation.samplers import Sampler
from fed_gswgan.reporting.trained_generator import load_generator

COLUMNS = 12
PER_CLASS = 8  # samples of a picture side by side
SEED = 0
GAP = 2  # pixels between two samples
LETTER = 7  # pixels of a title, at most on average
CPU = torch.device("cpu")
MOST_ACROSS = 6  # blocks beside each other
MOST_INSIDE = 6  # curves whose legend stands in the plot
MARKERS = "osD^vP*X<"


def sample_grid(sampler: Sampler, num_classes: int, seed: int) -> Tensor:
    """Return grid_CHW, float32 in [0, 1], a row for each class; grey samples as ink on paper."""
    from torchvision.utils import make_grid

    labels = torch.arange(num_classes).repeat_interleave(COLUMNS)
    samples = sampler(labels, seed)
    shown = 1 - samples if samples.shape[1] == 1 else samples
    grid: Tensor = make_grid(shown, nrow=COLUMNS, padding=2, pad_value=1.0)
    return grid


def save_grid(grid_CHW: Tensor, path: Path, class_names: Sequence[str] = ()) -> None:
    """Write the grid as a PNG, each class's name left of its row if they are known."""
    from torchvision.utils import save_image

    path.parent.mkdir(parents=True, exist_ok=True)
    if not class_names:
        save_image(grid_CHW, path)
        return
    from matplotlib.figure import Figure

    _, height, width = grid_CHW.shape
    figure = Figure(figsize=(width / 100 + 0.5, height / 100), layout="constrained")
    axes = figure.subplots()
    axes.imshow(grid_CHW.permute(1, 2, 0).clamp(0, 1).cpu().numpy())
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    _name_rows(axes, height, class_names)
    figure.savefig(path, dpi=200, format="png")


def _name_rows(axes: Any, height: int, class_names: Sequence[str]) -> None:
    """Write the names left of rows that share the height of a picture."""
    rows = (np.arange(len(class_names)) + 0.5) * height / max(len(class_names), 1)
    names = [name.replace("$", r"\$") for name in class_names]  # no mathematics
    axes.set_xticks([])
    axes.set_yticks(rows, names, fontsize="small")


def drawn_for_picture(sampler: Sampler, num_classes: int, device: torch.device = CPU) -> np.ndarray:
    """Draw a few samples of each class, as bytes (classes, per class, H, W), ink 255.

    Samples of several channels are bytes (classes, per class, H, W, C).
    """
    labels = torch.arange(num_classes, device=device).repeat_interleave(PER_CLASS)
    samples_BHWC = sampler(labels, SEED).permute(0, 2, 3, 1)
    pixels = (samples_BHWC * 255).round().to(torch.uint8).cpu().numpy()
    if pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    return pixels.reshape(num_classes, PER_CLASS, *pixels.shape[1:])


def drawn_samples(runs: Mapping[str, Path]) -> dict[str, np.ndarray]:
    """Draw the samples for a picture from each run's generator, by title."""
    drawn = {}
    for title, folder in runs.items():
        trained = load_generator(folder)
        drawn[title] = drawn_for_picture(trained.sampler, trained.spec.num_classes)
    return drawn


def save_side_by_side(
    pictures: Mapping[str, np.ndarray], path: Path, class_names: Sequence[str] = ()
) -> None:
    """Draw a block for each method, a row for each class, as a PNG; grey samples as ink on paper.

    Six blocks stand beside each other, further ones below them.

    Args:
        pictures: titles with bytes (classes, per class, H, W), ink 255, or (..., H, W, C).
        path: of the PNG.
        class_names: stand left of the rows; empty: they do not.
    """
    from matplotlib.figure import Figure

    blocks = {title: _block(samples) for title, samples in pictures.items()}
    across = min(len(blocks), MOST_ACROSS)
    down = -(-len(blocks) // across)
    height, width = next(iter(blocks.values())).shape[:2]
    titles = [fill(title, max(width // LETTER, 1)) for title in blocks]
    lines = 1 + max(title.count("\n") for title in titles)
    size = (width / 100 * across, (height / 100 + 0.15 + 0.15 * lines) * down)
    figure = Figure(figsize=size, layout="constrained")
    places = figure.subplots(down, across, squeeze=False)
    for axes in places.flat:
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(xticks=[], yticks=[])
    for axes, title, block in zip(places.flat, titles, blocks.values(), strict=False):
        axes.imshow(block, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize="small")
    for first in places[:, 0]:
        _name_rows(first, height, class_names)
    figure.savefig(path, dpi=150, format="png")


def _block(samples: np.ndarray) -> np.ndarray:
    """Return one picture (H, W) or (H, W, C), a row for each class, white between the samples."""
    shown = 255 - samples if samples.ndim == 4 else samples
    gaps = ((0, 0), (0, 0), (0, GAP), (0, GAP), *[(0, 0)] * (samples.ndim - 4))
    padded = np.pad(shown, gaps, constant_values=255)
    rows, columns, height, width = padded.shape[:4]
    return padded.swapaxes(1, 2).reshape(rows * height, columns * width, *padded.shape[4:])


def save_curves(
    path: Path,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    y_scale: str = "log",
    level: tuple[str, float] | None = None,
) -> None:
    """Draw curves, or single points, over a logarithmic axis, as a PNG.

    ``curves`` are titles with x and y; ``level`` is the title and y of a horizontal line.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    many = len(curves) > MOST_INSIDE
    figure = Figure(figsize=(9.5 if many else 6, 4), layout="constrained")
    axes = figure.add_subplot()
    if many:
        axes.set_prop_cycle(color=colormaps["tab20"](range(20)))
    for place, (title, (xs, ys)) in enumerate(curves.items()):
        marker = MARKERS[place % len(MARKERS)] if len(xs) < 20 else ""
        axes.plot(xs, ys, marker=marker, label=title)
    if level:
        axes.axhline(level[1], linestyle="dotted", color="black", label=level[0])
    axes.set(xlabel=x_label, ylabel=y_label, xscale="log", yscale=y_scale)
    if y_scale == "log":
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    if many:
        figure.legend(loc="outside right center", fontsize="small")
    else:
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120, format="png")


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
