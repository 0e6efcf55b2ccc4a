"""The metrics of one generator, from its samples and held-out real images."""

import time
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from fed_gswgan.evaluation.classifier import train_classifier
from fed_gswgan.evaluation.downstream import downstream_accuracy
from fed_gswgan.evaluation.frechet_distance import frechet_distance
from fed_gswgan.evaluation.inception_score import inception_score
from fed_gswgan.evaluation.judge import judge_accuracy
from fed_gswgan.evaluation.label_agreement import label_agreement
from fed_gswgan.evaluation.sampler import (
    Sampler,
    draw_samples,
    proportional_labels,
    uniform_labels,
)
from fed_gswgan.validation import at_least


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """What was measured, and what each number may be read to say.

    The judge is a small classifier trained on all held-out images. It, and so the first three
    numbers, depend on those images and on the seed: compare generators with both equal. The
    judge has seen the very images the Fréchet distance refers to, so real images it has not seen
    would not reach 0 either; the numbers rank generators and are not absolute.
    Where the classes are uneven, ``downstream_accuracy`` stays below ``judge_accuracy`` even for
    real images as samples: it learns from equally many of each class and is tested on the uneven
    ones.
    """

    inception_score: float  # 1 to the number of classes: sure and even; not Inception-v3
    frechet_distance: float  # 0 and up, low is good: realism and variety; not FID
    label_agreement: float  # 0 to 1: the class asked for; blind to variety
    downstream_accuracy: float  # 0 to 1, on all held-out images: use of samples as training data
    judge_accuracy: float  # 0 to 1: as downstream_accuracy, trained on half the real images
    judge_balanced_accuracy: float  # 0 to 1: mean over classes, as label_agreement
    held_out_images: int
    sample_count: int  # of each of the two draws: uniform and proportional labels
    classes: int  # that occur in the held-out images; samples are asked for these only
    judge_note: str
    seconds: float = field(compare=False)

    def to_dict(self) -> dict[str, float | int | str]:
        """Return the numbers by name, fit for JSON."""
        return asdict(self)


def evaluate(
    sampler: Sampler,
    held_out_images: Tensor,
    held_out_labels: Tensor,
    num_classes: int,
    sample_count: int,
    seed: int,
    classifier_steps: int | None = None,
) -> EvaluationReport:
    """Measure a generator against real images that no client trains on.

    Samples are drawn twice: with as many of each class for the inception score, label agreement
    and downstream training, and in the held-out proportions for the Fréchet distance, which would
    otherwise count a difference of proportions as a fault. The sampler runs in batches of 500;
    the metrics run on the held-out images' device.

    Args:
        sampler: see ``Sampler``; its labels come on the held-out labels' device.
        held_out_images: float32 (N, 1, 28, 28) in [0, 1], ink 1, paper 0. No client
            may train on them: what is measured on them is published without noise.
        held_out_labels: int64 (N,) in [0, ``num_classes``).
        num_classes: of the data set, whether or not all occur here.
        sample_count: of each draw, at least 2.
        seed: of samples, judge, downstream classifier and splits. It is no part of the run: use
            the same for runs to be compared.
        classifier_steps: of every classifier; by default 30 for each class.

    Raises:
        ValueError: images, labels or samples are not as described.
    """
    started = time.perf_counter()
    at_least(2, sample_count=sample_count)
    _require_labelled_images(held_out_images, held_out_labels, num_classes)
    device = held_out_images.device
    images, labels = held_out_images, held_out_labels

    uniform = uniform_labels(labels, sample_count)
    samples = draw_samples(sampler, uniform, "uniform", seed).to(device)
    proportional = proportional_labels(labels, sample_count)
    matched_samples = draw_samples(sampler, proportional, "proportional", seed).to(device)

    judge = train_classifier(images, labels, num_classes, seed, classifier_steps)
    on_unseen = judge_accuracy(images, labels, num_classes, seed, classifier_steps)
    classes = len(torch.unique(labels))
    return EvaluationReport(
        inception_score=inception_score(judge, samples, seed),
        frechet_distance=frechet_distance(judge, images, matched_samples),
        label_agreement=label_agreement(judge, samples, uniform),
        downstream_accuracy=downstream_accuracy(
            samples, uniform, images, labels, num_classes, seed, classifier_steps
        ),
        judge_accuracy=on_unseen.accuracy,
        judge_balanced_accuracy=on_unseen.balanced_accuracy,
        held_out_images=len(images),
        sample_count=sample_count,
        classes=classes,
        judge_note=(
            f"judged by a small CNN trained on {len(images)} held-out real images of {classes} of "
            f"{num_classes} classes, not by Inception-v3; from half of them it reaches "
            f"{on_unseen.accuracy:.1%} on the other half"
        ),
        seconds=time.perf_counter() - started,
    )


def _require_labelled_images(images: Tensor, labels: Tensor, num_classes: int) -> None:
    at_least(1, num_classes=num_classes)
    at_least(2, held_out_images=len(images))
    if images.shape[1:] != (1, 28, 28) or images.dtype != torch.float32:
        found = f"{images.dtype} {tuple(images.shape)}"
        raise ValueError(f"held-out images={found} must be torch.float32 (N, 1, 28, 28)")
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError("held-out images must lie in [0, 1]")
    if labels.shape != (len(images),) or labels.dtype != torch.int64:
        found = f"{labels.dtype} {tuple(labels.shape)}"
        raise ValueError(f"held-out labels={found} must be torch.int64 ({len(images)},)")
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        found = f"{int(labels.min())} to {int(labels.max())}"
        raise ValueError(f"held-out labels from {found} must lie in [0, {num_classes})")
