"""Fréchet distance between samples and real images, in features of a classifier of real images."""

import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from fed_gswgan.evaluation.classifier import READING_BATCH_SIZE, ImageClassifier
from fed_gswgan.evaluation.features import ClassifierFeatures, FeatureExtractor
from fed_gswgan.validation import at_least


def frechet_distance(judge: ImageClassifier, images_NCHW: Tensor, samples_NCHW: Tensor) -> float:
    """Return |m - m'|^2 + Tr(S + S' - 2 (S S')^(1/2)) of the means and covariances of features.

    0 for equal Gaussians, no upper end. It sees missing variety, which the inception score does
    not. It is not FID, whose features are Inception-v3's: its unit is this judge's, so compare
    only distances measured by the same judge, against the same images, with as many samples.
    Few images make it too large, since a covariance of 64 features is estimated from them.

    Args:
        judge: in eval mode; the features are its 64 penultimate activations.
        images_NCHW: the real reference, float32 (N, 1, 28, 28) in [0, 1], at least 2.
        samples_NCHW: in the same class proportions as the reference, otherwise the distance
            also measures the difference of the proportions; at least 2.

    Source: Heusel et al. 2017 (arXiv 1706.08500), section 3, equation 6.
    """
    return frechet_distance_in(ClassifierFeatures(judge), images_NCHW, samples_NCHW)


def frechet_distance_in(
    extractor: FeatureExtractor, images_NCHW: Tensor, samples_NCHW: Tensor
) -> float:
    """Return the Fréchet distance in any features; see ``frechet_distance``.

    It is FID with the features of ``inception_features``.

    Args:
        extractor: maps images to features; as many images as features are the least.
        images_NCHW: the real reference, float32 (N, 1, 28, 28) in [0, 1], at least 2.
        samples_NCHW: at least 2.
    """
    at_least(2, frechet_distance_images=len(images_NCHW))
    at_least(2, frechet_distance_samples=len(samples_NCHW))
    distance = FrechetInceptionDistance(feature=extractor)
    with torch.no_grad():
        for batch in torch.split(images_NCHW, READING_BATCH_SIZE):
            distance.update(batch, real=True)
        for batch in torch.split(samples_NCHW, READING_BATCH_SIZE):
            distance.update(batch, real=False)
        # Rounding may leave equal Gaussians a hair below zero.
        return max(0.0, float(distance.compute()))
