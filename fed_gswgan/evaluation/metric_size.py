"""How much a table of metrics costs: the published sizes, or minutes."""

from dataclasses import dataclass
from typing import Literal

import torch

from fed_gswgan.evaluation.score_classifier import KINDS, ScoreClassifierKind
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
