"""Samples for a metric: drawn from a generator, pooled, or read from a file.

Shapes: B batch, C channels, H and W image.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.data.client_dataset import image_shape_of
from fed_gswgan.data.files import npz_arrays
from fed_gswgan.evaluation.classifier import ImageClassifier, accuracy
from fed_gswgan.progress import steps
from fed_gswgan.seeding import SeedStream

Sampler = Callable[[Tensor, int], Tensor]
"""``sampler(labels_B, seed)``: int64 labels to float32 samples (B, C, H, W) in [0, 1], ink 1."""

SAMPLE_BATCH_SIZE = 500


def draw_samples(
    sampler: Sampler,
    labels_N: Tensor,
    purpose: str,
    seed: int,
    image_shape: tuple[int, int, int] | None = None,
) -> Tensor:
    """Return one sample for each label, drawn batch by batch with a seed of its own each.

    Args:
        sampler: the generator under evaluation.
        labels_N: the classes asked for, int64.
        purpose: keeps two draws of one evaluation independent.
        seed: the evaluation's.
        image_shape: (C, H, W) that samples must have; None: that of the first batch.

    Raises:
        ValueError: the samples are not float32 (N, C, H, W) in [0, 1]; NaN is not in [0, 1].
    """
    seeds = SeedStream(seed)
    batches = []
    split = list(enumerate(torch.split(labels_N, SAMPLE_BATCH_SIZE)))
    for index, labels_B in steps("samples for the metrics", split):
        samples_BCHW = sampler(labels_B, seeds.torch_seed(f"samples, {purpose}, batch {index}"))
        _require_samples(samples_BCHW, len(labels_B), image_shape)
        image_shape = image_shape_of(samples_BCHW)
        batches.append(samples_BCHW.detach())
    return torch.cat(batches)


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


def _require_samples(
    samples_BCHW: Tensor, count: int, image_shape: tuple[int, int, int] | None
) -> None:
    found = tuple(samples_BCHW.shape)
    expected = (count, *(image_shape or found[1:]))
    if len(found) != 4 or found != expected or samples_BCHW.dtype != torch.float32:
        wanted = expected if image_shape else f"({count}, C, H, W)"
        raise ValueError(f"samples={samples_BCHW.dtype} {found} must be torch.float32 {wanted}")
    if not bool(((samples_BCHW >= 0) & (samples_BCHW <= 1)).all()):
        low, high = samples_BCHW.min().item(), samples_BCHW.max().item()
        raise ValueError(f"samples from {low} to {high} must lie in [0, 1]")


def pool_sampler(samples_NCHW: Tensor, labels_N: Tensor) -> Sampler:
    """Return a sampler that draws from a pool, with replacement, by label and seed.

    Args:
        samples_NCHW: float32 (N, C, H, W) in [0, 1].
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


class SampleFile(NamedTuple):
    """Samples with their labels.

    Attributes:
        samples_NCHW: float32 (N, C, H, W) in [0, 1], ink 1.
        labels_N: int64.
    """

    samples_NCHW: Tensor
    labels_N: Tensor


def write_samples(
    path: Path, samples_NCHW: Tensor, labels_N: Tensor, class_names: Sequence[str] = ()
) -> None:
    """Write ``samples``, bytes (N, H, W) or (N, C, H, W), ink 255, and ``labels`` into an npz.

    ``class_names`` stand beside them, as many as are known.
    """
    pixels = (samples_NCHW * 255).round().to(torch.uint8).cpu().numpy()
    if pixels.shape[1] == 1:
        pixels = pixels[:, 0]
    names = np.array(class_names, dtype=str)
    labels = labels_N.cpu().numpy()
    np.savez_compressed(path, samples=pixels, labels=labels, class_names=names)


def read_samples(path: Path) -> SampleFile:
    """Read what ``write_samples`` wrote, or float pixels in [0, 1]; nothing is unpickled.

    Channels may come last.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no npz file; an array is missing, or of another type, shape or range; or
            there are fewer than two samples.
    """
    samples, labels = npz_arrays(path, "samples", "labels")
    if samples.dtype.kind not in "buif":
        raise ValueError(f"{path}: samples are {samples.dtype}, must be numbers")
    pixels = samples.astype(np.float32)
    if samples.dtype == np.uint8:
        pixels /= 255
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    if pixels.ndim != 4:
        raise ValueError(
            f"{path}: samples of shape {samples.shape} must be (N, H, W) or (N, C, H, W)"
        )
    if pixels.shape[1] not in CHANNELS and pixels.shape[3] in CHANNELS:
        pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    if len(pixels) < 2:
        raise ValueError(f"{path}: samples={len(pixels)} must be >= 2: metrics compare many")
    # Written so that a NaN, which compares false with everything, is refused too.
    if not ((pixels >= 0) & (pixels <= 1)).all():
        raise ValueError(
            f"{path}: samples are {samples.dtype} from {pixels.min():g} to {pixels.max():g}, must "
            "be bytes (uint8), or lie in [0, 1]"
        )
    if labels.shape != (len(samples),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{path}: labels are {labels.dtype} of shape {labels.shape}, must be {len(samples)} "
            "whole numbers"
        )
    return SampleFile(torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64)))


CHANNELS = (1, 3)


def label_agreement(judge: ImageClassifier, samples_NCHW: Tensor, labels_N: Tensor) -> float:
    """Return the share of samples in [0, 1] that the judge takes for the class asked for.

    Chance is one over the number of classes. It sees neither realism nor variety: one
    recognisable sample of each class, repeated, reaches 1. The judge errs on real images as
    well; ``judge_balanced_accuracy`` tells how often.

    Args:
        judge: a classifier of real images, in eval mode.
        samples_NCHW: float32 (N, C, H, W) in [0, 1].
        labels_N: the classes asked for, int64, as many of each.
    """
    return accuracy(judge, samples_NCHW, labels_N)
