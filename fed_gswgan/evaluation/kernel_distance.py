"""Kernel distance between samples and real images: as the Fréchet distance, without Gaussians."""

import warnings

import torch
from torch import Tensor
from torchmetrics.image.kid import KernelInceptionDistance

from fed_gswgan.evaluation.classifier import READING_BATCH_SIZE
from fed_gswgan.evaluation.features import FeatureExtractor
from fed_gswgan.seeding import SeedStream
from fed_gswgan.validation import at_least

SUBSETS = 100
SUBSET_SIZE = 1000


def kernel_distance(
    extractor: FeatureExtractor,
    images_NCHW: Tensor,
    samples_NCHW: Tensor,
    seed: int,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
) -> float:
    """Return the squared maximum mean discrepancy under the kernel (x·y / F + 1)^3.

    The mean of the unbiased estimate over random subsets, so equal distributions give 0 in the
    mean, a little below as often as above, and unlike the Fréchet distance it does not grow where
    images are few. It is KID with the features of ``inception_features``; in any others
    compare only distances in the same ones.

    Args:
        extractor: maps images to F features.
        images_NCHW: the real reference, float32 (N, 1, 28, 28) in [0, 1], at least 2.
        samples_NCHW: in the same class proportions as the reference; at least 2.
        seed: of the subsets; the caller's random state is left as it was.
        subsets: how many are drawn.
        subset_size: images and samples in each; all of the smaller set where it has fewer.

    Source: Binkowski et al. 2018 (arXiv 1801.01401), section 4.
    """
    at_least(2, kernel_distance_images=len(images_NCHW))
    at_least(2, kernel_distance_samples=len(samples_NCHW))
    at_least(2, kernel_distance_subset_size=subset_size)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*will save all extracted features in buffer")
        distance = KernelInceptionDistance(
            feature=extractor,
            subsets=subsets,
            subset_size=min(subset_size, len(images_NCHW), len(samples_NCHW)),
        )
    with torch.no_grad():
        for batch in torch.split(images_NCHW, READING_BATCH_SIZE):
            distance.update(batch, real=True)
        for batch in torch.split(samples_NCHW, READING_BATCH_SIZE):
            distance.update(batch, real=False)
        with torch.random.fork_rng(devices=[]):
            # The subsets come from the global generator.
            torch.default_generator.manual_seed(SeedStream(seed).torch_seed("kernel subsets"))
            mean, _ = distance.compute()
    return float(mean)
