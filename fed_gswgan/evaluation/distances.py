"""Distances between sets of features: Fréchet and kernel distance, and the inception score.

Shapes: N rows, F features.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.evaluation.classifier import READING_BATCH_SIZE, ImageClassifier
from fed_gswgan.evaluation.scores import (
    KINDS,
    ClassifierFeatures,
    FeatureExtractor,
    ScoreClassifierKind,
)
from fed_gswgan.priors.prior import open_judge
from fed_gswgan.progress import steps
from fed_gswgan.seeding import SeedStream
from fed_gswgan.validation import at_least, one_of


@dataclass(frozen=True, kw_only=True)
class MetricSize:
    """The sizes of every metric of a table; figures of two sizes are not to be compared.

    Attributes:
        name: stands beside the figures.
        classifier_samples: train the twelve classifiers and the LeNet; the inception score too
            is taken over them.
        linear_svc_iterations: at most; on samples that no line divides it uses all of them.
        lenet_epochs: of the LeNet.
        score_classifier: judge of the inception score.
        score_training: its epochs (``vgg11``) or optimizer steps (``small``).
        features: of the Fréchet and the kernel distance: ``inception``, or ``classifier`` for the
            judge's.
        distance_samples: chosen at random from the samples.
        distance_images: chosen at random from the real training images.
    """

    name: str
    classifier_samples: int
    linear_svc_iterations: int
    lenet_epochs: int
    score_classifier: ScoreClassifierKind
    score_training: int
    features: Literal["inception", "classifier"]
    distance_samples: int
    distance_images: int

    def __post_init__(self) -> None:
        at_least(2, classifier_samples=self.classifier_samples)
        at_least(1, linear_svc_iterations=self.linear_svc_iterations)
        at_least(1, lenet_epochs=self.lenet_epochs)
        one_of(KINDS, score_classifier=self.score_classifier)
        at_least(1, score_training=self.score_training)
        at_least(2, distance_samples=self.distance_samples)
        at_least(2, distance_images=self.distance_images)
        one_of(("inception", "classifier"), features=self.features)


SMALL = MetricSize(
    name="small",
    classifier_samples=6_000,
    linear_svc_iterations=1_000,  # a tenth of the published; on bad samples a minute, not ten
    lenet_epochs=20,
    score_classifier="small",
    score_training=600,
    features="classifier",
    distance_samples=6_000,
    distance_images=10_000,
)

# Source: the evaluation code of GS-WGAN (arXiv 2006.08265). It needs an accelerator.
FULL = MetricSize(
    name="full",
    classifier_samples=60_000,
    linear_svc_iterations=10_000,
    lenet_epochs=50,
    score_classifier="vgg11",
    score_training=50,
    features="inception",
    distance_samples=20_000,
    distance_images=60_000,
)

FULL_ON_CPU = MetricSize(
    name="full-on-cpu",  # the published sizes; VGG11 and Inception-v3 alone are replaced
    classifier_samples=60_000,
    linear_svc_iterations=10_000,
    lenet_epochs=50,
    score_classifier="small",
    score_training=3_000,
    features="classifier",
    distance_samples=20_000,
    distance_images=60_000,
)


def metric_size(preset: str, device: torch.device) -> MetricSize:
    """Return the sizes for ``small`` or ``full``; two networks of the full ones need a GPU."""
    if preset == "small":
        return SMALL
    return FULL if device.type == "cuda" else FULL_ON_CPU


def frechet_distance(judge: ImageClassifier, images_NCHW: Tensor, samples_NCHW: Tensor) -> float:
    """Return |m - m'|^2 + Tr(S + S' - 2 (S S')^(1/2)) of the means and covariances of features.

    0 for equal Gaussians, no upper end. It sees missing variety, which the inception score does
    not. It is not FID, whose features are Inception-v3's: its unit is this judge's, so compare
    only distances measured by the same judge, against the same images, with as many samples.
    Few images make it too large, since a covariance of 64 features is estimated from them.

    Args:
        judge: in eval mode; the features are its 64 penultimate activations.
        images_NCHW: the real reference, float32 (N, C, H, W) in [0, 1], at least 2.
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
        images_NCHW: the real reference, float32 (N, C, H, W) in [0, 1], at least 2.
        samples_NCHW: at least 2.
    """
    at_least(2, frechet_distance_images=len(images_NCHW))
    at_least(2, frechet_distance_samples=len(samples_NCHW))
    distance = FrechetInceptionDistance(feature=extractor)
    with torch.no_grad():
        for batch in _batches("Fréchet distance, images", images_NCHW):
            distance.update(batch, real=True)
        for batch in _batches("Fréchet distance, samples", samples_NCHW):
            distance.update(batch, real=False)
        # Rounding may leave equal Gaussians a hair below zero.
        return max(0.0, float(distance.compute()))


def stroke_frechet_distance(images_NCHW: Tensor, samples_NCHW: Tensor) -> float | None:
    """Return the Fréchet distance in features of the second judge, which saw drawings alone.

    Arguments are those of ``frechet_distance``; None for images of another shape than characters.
    """
    if images_NCHW.shape[1:] != IMAGE_SHAPE:
        return None
    judge = ClassifierFeatures(open_judge().to(images_NCHW.device), "drawn characters")
    return frechet_distance_in(judge, images_NCHW, samples_NCHW)


def nearest_distances(images_NCHW: Tensor, others_MCHW: Tensor) -> Tensor:
    """Return how far each image is from the nearest of the others, (N,): L2 of the pixels.

    Arguments are float32 in [0, 1].
    """
    rows_NP, others_MP = images_NCHW.flatten(1), others_MCHW.flatten(1)
    batches = _batches("nearest training images", rows_NP)
    return torch.cat([torch.cdist(rows_BP, others_MP).amin(1) for rows_BP in batches])


def _batches(title: str, images_NCHW: Tensor) -> Iterator[Tensor]:
    return steps(title, torch.split(images_NCHW, READING_BATCH_SIZE))


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
        images_NCHW: the real reference, float32 (N, C, H, W) in [0, 1], at least 2.
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
        for batch in _batches("kernel distance, images", images_NCHW):
            distance.update(batch, real=True)
        for batch in _batches("kernel distance, samples", samples_NCHW):
            distance.update(batch, real=False)
        with torch.random.fork_rng(devices=[]):
            # The subsets come from the global generator.
            torch.default_generator.manual_seed(SeedStream(seed).torch_seed("kernel subsets"))
            mean, _ = distance.compute()
    return float(mean)


SPLITS = 10


def inception_score(judge: nn.Module, samples_NCHW: Tensor, seed: int) -> float:
    """Return exp(E[KL(p(y|x) || p(y))]), the mean over 10 random splits of the samples.

    Between 1 and the number of classes: high where the judge is sure of each sample and all
    classes occur. It sees neither whether the class is the one asked for nor variety within a
    class, and one perfect sample of each class reaches the top. The judge is not Inception-v3,
    so compare only scores given by the same judge for as many samples; a split with few samples
    for each class scores low.

    Args:
        judge: in eval mode; p(y|x) is the softmax of its logits.
        samples_NCHW: float32 (N, C, H, W) in [0, 1], N >= 2; labels uniform over the classes.
        seed: of the random splits; the caller's random state is left as it was.

    Source: Salimans et al. 2016 (arXiv 1606.03498), section 4.
    """
    at_least(2, inception_score_samples=len(samples_NCHW))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*will save all extracted features in buffer")
        score = InceptionScore(feature=_Logits(judge), splits=min(SPLITS, len(samples_NCHW) // 2))
    with torch.no_grad():
        for batch in _batches("inception score", samples_NCHW):
            score.update(batch)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # The splits come from the global generator; one split has no standard deviation.
            torch.default_generator.manual_seed(SeedStream(seed).torch_seed("inception splits"))
            warnings.filterwarnings("ignore", message=".*degrees of freedom")
            mean, _ = score.compute()
    return float(mean)


class _Logits(nn.Module):
    """The judge's logits in float64: in float32 a class no sample resembles gives 0 * inf."""

    def __init__(self, judge: nn.Module) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits_BL: Tensor = self.judge(images_BCHW)
        return logits_BL.cpu().double()
