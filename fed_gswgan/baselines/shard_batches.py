"""A batch of every teacher's own images, drawn for all teachers at once.

Shapes: M teachers, S images of a shard, R images of a teacher's batch, P pixels.
"""

import numpy as np
import torch
from torch import Tensor


def draw_shard_batches(
    images_MSP: Tensor, labels_MS: Tensor, batch_size: int, randomness: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return (images_MRP, labels_MR): each teacher's, from its shard alone, with replacement."""
    count, shard_size = labels_MS.shape
    rows = randomness.integers(shard_size, size=(count, batch_size))
    rows_MR = torch.from_numpy(rows).to(images_MSP.device)
    teachers_M1 = torch.arange(count, device=images_MSP.device)[:, None]
    return images_MSP[teachers_M1, rows_MR], labels_MS[teachers_M1, rows_MR]
