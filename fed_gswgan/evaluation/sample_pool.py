"""Samples that are there already, drawn from as if a generator made them."""

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.evaluation.sampler import Sampler
from fed_gswgan.seeding import SeedStream


def pool_sampler(samples_NCHW: Tensor, labels_N: Tensor) -> Sampler:
    """Return a sampler that draws from a pool, with replacement, by label and seed.

    Args:
        samples_NCHW: float32 (N, 1, 28, 28) in [0, 1].
        labels_N: int64.
    """
    places = {label: np.flatnonzero(labels_N.cpu() == label) for label in set(labels_N.tolist())}

    def sampler(labels_B: Tensor, seed: int) -> Tensor:
        randomness = SeedStream(seed).generator("sample pool")
        missing = sorted(set(labels_B.tolist()) - set(places))
        if missing:
            raise ValueError(f"labels={missing} must occur among the samples; they do not")
        chosen = [randomness.choice(places[label]) for label in labels_B.tolist()]
        return samples_NCHW[torch.tensor(chosen)]

    return sampler
