"""Votes on the coordinates of gradients, and their winners, if enough agree.

Shapes: M teachers, B samples, K coordinates of a sample, V bins.
"""

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.privacy.noise import NoiseSource

BINS = 10  # Source: G-PATE's code, as is the next
THRESHOLD_SHARE = 0.5  # of the teachers


def vote(coordinates_MBK: Tensor, gradient_bound: float) -> np.ndarray:
    """Return counts (B, K, V): each teacher's vote for the bin of each of its coordinates.

    Guarantees: a teacher adds 1 to one bin of each query, whatever it holds; NaN counts as 0.
    """
    clipped = torch.nan_to_num(coordinates_MBK).clamp(-gradient_bound, gradient_bound)
    bins_MBK = ((clipped / gradient_bound + 1) / 2 * BINS).long().clamp(0, BINS - 1)
    _, batch_size, dim = bins_MBK.shape
    queries_BK = torch.arange(batch_size * dim, device=bins_MBK.device).view(batch_size, dim)
    counts = torch.bincount(
        (bins_MBK + BINS * queries_BK).flatten(), minlength=batch_size * dim * BINS
    )
    counts_BKV: np.ndarray = counts.view(batch_size, dim, BINS).cpu().numpy()
    return counts_BKV


def confident_winners(
    counts_BKV: np.ndarray,
    teachers: int,
    noise_stddev: float,
    threshold_noise_stddev: float,
    noise: NoiseSource,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bin that wins each query under noise, and whether it has enough votes.

    Source: the Confident-GNMax aggregator of arXiv 1802.08908, algorithm 1.
    """
    largest_BK = noise.add_noise(counts_BKV.max(axis=2), threshold_noise_stddev)
    winners_BK = noise.add_noise(counts_BKV, noise_stddev).argmax(axis=2)
    return winners_BK, largest_BK >= THRESHOLD_SHARE * teachers
