"""A picture of what a generator draws: one row a class.

Shapes: C channels, H and W image.
"""

from pathlib import Path

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
