"""The generator as evaluation sees it: labels in, samples out.

Shape letters of this package: ``N`` images, ``B`` batch, ``C`` channels, ``H`` ``W`` pixels,
``F`` features, ``L`` classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fed_gswgan.seeding import SeedStream

Sampler = Callable[[Tensor, int], Tensor]
"""``sampler(labels_B, seed)``: int64 labels to float32 samples (B, 1, 28, 28) in [0, 1], ink 1."""

SAMPLE_BATCH_SIZE = 500


def draw_samples(sampler: Sampler, labels_N: Tensor, purpose: str, seed: int) -> Tensor:
    """Return one sample for each label, drawn batch by batch with a seed of its own each.

    Args:
        sampler: the generator under evaluation.
        labels_N: the classes asked for, int64.
        purpose: keeps two draws of one evaluation independent.
        seed: the evaluation's.

    Raises:
        ValueError: the samples are not float32 (N, 1, 28, 28) in [0, 1]; NaN is not in [0, 1].
    """
    seeds = SeedStream(seed)
    return torch.cat(
        [
            _checked(sampler(batch, seeds.torch_seed(f"samples, {purpose}, batch {index}")), batch)
            for index, batch in enumerate(torch.split(labels_N, SAMPLE_BATCH_SIZE))
        ]
    )


def uniform_labels(labels_N: Tensor, count: int) -> Tensor:
    """Return ``count`` labels, as many of each class that occurs in ``labels_N``, interleaved."""
    classes: Tensor = torch.unique(labels_N)
    return classes[torch.arange(count, device=classes.device) % len(classes)]


def proportional_labels(labels_N: Tensor, count: int) -> Tensor:
    """Return ``count`` labels in the proportions of ``labels_N``, with no randomness in them.

    They stand at ``count`` evenly spaced places of the sorted labels, so the number of each class
    is within one of its exact share.
    """
    places = (torch.arange(count, device=labels_N.device) * 2 + 1) * len(labels_N) // (2 * count)
    return labels_N.sort().values[places]


def _checked(samples_BCHW: Tensor, labels_B: Tensor) -> Tensor:
    expected = (len(labels_B), 1, 28, 28)
    if samples_BCHW.shape != expected or samples_BCHW.dtype != torch.float32:
        found = f"{samples_BCHW.dtype} {tuple(samples_BCHW.shape)}"
        raise ValueError(f"samples={found} must be torch.float32 {expected}")
    if not bool(((samples_BCHW >= 0) & (samples_BCHW <= 1)).all()):
        low, high = samples_BCHW.min().item(), samples_BCHW.max().item()
        raise ValueError(f"samples from {low} to {high} must lie in [0, 1]")
    return samples_BCHW.detach()
