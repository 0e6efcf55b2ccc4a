"""Batches that each image is in by its own coin, and what noisy sums over them release."""

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.accounting.trust import DeclaredRelease, SamplingMethod
from fed_gswgan.privacy.mechanism import NeighboringRelation


def poisson_batch(count: int, probability: float, randomness: np.random.Generator) -> Tensor:
    """Return indices, int64, of those of ``count`` images that their own coins select."""
    return torch.from_numpy(np.flatnonzero(randomness.random(count) < probability))


def noisy_sums(
    what: str, num_images: int, batch_size: int, steps: int, noise_multiplier: float
) -> DeclaredRelease:
    """Return what a noisy sum of clipped gradients in each step releases.

    An image that is zeroed out moves a sum by the clipping bound at most. The number of images is
    taken as known; that of a batch is not shown.

    Args:
        what: is released, in words.
        num_images: that batches are drawn from.
        batch_size: images in a batch on average.
        steps: each on a batch of its own.
        noise_multiplier: noise on a sum, in units of the clipping bound.

    Raises:
        ValueError: fewer images than ``batch_size``.
    """
    if num_images < batch_size:
        raise ValueError(
            f"batch-size={batch_size} must be at most the {num_images} training images"
        )
    return DeclaredRelease(
        what=what,
        mu=1 / noise_multiplier,
        rounds=steps,
        relation=NeighboringRelation.ZERO_OUT,
        sampling=SamplingMethod.POISSON,
        sampling_probability=batch_size / num_images,
    )
