"""Pictures of a comparison: samples of every method side by side, and curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
import torch
from matplotlib.figure import Figure

from fed_gswgan.evaluation.samplers import Sampler
from fed_gswgan.reporting.trained_generator import load_generator

PER_CLASS = 8
SEED = 0
GAP = 2  # pixels between two samples
LETTER = 7  # pixels of a title, at most on average

CPU = torch.device("cpu")


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


def save_side_by_side(pictures: Mapping[str, np.ndarray], path: Path) -> None:
    """Draw a block for each method, a row for each class, as a PNG; grey samples as ink on paper.

    ``pictures`` are titles with bytes (classes, per class, H, W), ink 255, or (..., H, W, C).
    """
    blocks = {title: _block(samples) for title, samples in pictures.items()}
    height, width = next(iter(blocks.values())).shape[:2]
    titles = [fill(title, max(width // LETTER, 1)) for title in blocks]
    lines = 1 + max(title.count("\n") for title in titles)
    size = (width / 100 * len(blocks), height / 100 + 0.15 + 0.15 * lines)
    figure = Figure(figsize=size, layout="constrained")
    places = figure.subplots(1, len(blocks), squeeze=False)[0]
    for axes, title, block in zip(places, titles, blocks.values(), strict=True):
        axes.imshow(block, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize="small")
        axes.axis("off")
    figure.savefig(path, dpi=150, format="png")


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
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for title, (xs, ys) in curves.items():
        axes.plot(xs, ys, marker="o" if len(xs) < 20 else "", label=title)
    if level:
        axes.axhline(level[1], linestyle="dotted", color="black", label=level[0])
    axes.set(xlabel=x_label, ylabel=y_label, xscale="log", yscale=y_scale)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120, format="png")


def _block(samples: np.ndarray) -> np.ndarray:
    """Return one picture (H, W) or (H, W, C), a row for each class, white between the samples."""
    shown = 255 - samples if samples.ndim == 4 else samples
    gaps = ((0, 0), (0, 0), (0, GAP), (0, GAP), *[(0, 0)] * (samples.ndim - 4))
    padded = np.pad(shown, gaps, constant_values=255)
    rows, columns, height, width = padded.shape[:4]
    return padded.swapaxes(1, 2).reshape(rows * height, columns * width, *padded.shape[4:])
