"""Samples in a file: what one command writes and another measures."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class SampleFile(NamedTuple):
    """Samples with their labels.

    Attributes:
        samples_NCHW: float32 (N, 1, 28, 28) in [0, 1], ink 1.
        labels_N: int64.
    """

    samples_NCHW: Tensor
    labels_N: Tensor


def write_samples(path: Path, samples_NCHW: Tensor, labels_N: Tensor) -> None:
    """Write ``samples`` as bytes (N, 28, 28), ink 255, and ``labels``, into an npz."""
    pixels = (samples_NCHW[:, 0] * 255).round().to(torch.uint8).cpu().numpy()
    np.savez_compressed(path, samples=pixels, labels=labels_N.cpu().numpy())


def read_samples(path: Path) -> SampleFile:
    """Read what ``write_samples`` wrote, or float pixels in [0, 1]; nothing is unpickled.

    Raises:
        OSError: the file cannot be read.
        ValueError: an array is missing, or of another type, shape or range.
    """
    with np.load(path, allow_pickle=False) as file:
        if not {"samples", "labels"} <= set(file):
            raise ValueError(f"{path} holds {sorted(file)}, must hold samples and labels")
        samples, labels = file["samples"], file["labels"]
    pixels = samples.reshape(len(samples), -1).astype(np.float32)
    if samples.dtype == np.uint8:
        pixels /= 255
    if pixels.shape[1:] != (784,):
        raise ValueError(f"{path}: samples of shape {samples.shape} must be (N, 28, 28)")
    # Written so that a NaN, which compares false with everything, is refused too.
    if not ((pixels >= 0) & (pixels <= 1)).all():
        raise ValueError(f"{path}: samples must be bytes, or lie in [0, 1]")
    if labels.shape != (len(samples),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{path}: labels are {labels.dtype} of shape {labels.shape}, must be {len(samples)} "
            "whole numbers"
        )
    return SampleFile(
        torch.from_numpy(pixels.reshape(-1, 1, 28, 28)), torch.from_numpy(labels.astype(np.int64))
    )
