"""Metrics of a generator on images that no client holds.

Shapes: B batch, C channels, H and W image.
"""

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.data.client_dataset import WriterSource, image_shape_of
from fed_gswgan.evaluation.classifier import (
    downstream_accuracy,
    predicted_labels,
    train_classifier,
)
from fed_gswgan.evaluation.distances import (
    frechet_distance,
    inception_score,
    kernel_distance,
    stroke_frechet_distance,
)
from fed_gswgan.evaluation.samplers import (
    Sampler,
    draw_samples,
    label_agreement,
    proportional_labels,
    uniform_labels,
)
from fed_gswgan.evaluation.scores import ClassifierFeatures
from fed_gswgan.seeding import SeedStream
from fed_gswgan.validation import at_least

MOST_GREYS = 256


class JudgeAccuracy(NamedTuple):
    """Accuracies in [0, 1] on one half of the real images after training on the other half."""

    accuracy: float  # over images: set downstream_accuracy beside it
    balanced_accuracy: float  # mean over classes: set label_agreement beside it


def judge_accuracy(
    images_NCHW: Tensor, labels_N: Tensor, num_classes: int, seed: int, steps: int | None = None
) -> JudgeAccuracy:
    """Train on a random half of the images, class by class, and test on the other half.

    A judge trained on all images is somewhat better than this. Halves are drawn by image and not
    by writer, so a writer may stand in both, which makes the accuracy a little kinder than on
    strangers.

    Args:
        images_NCHW: float32 (N, C, H, W) in [0, 1], N >= 2.
        labels_N: int64.
        num_classes: of the classifier.
        seed: of the halves and of the training.
        steps: optimizer steps; by default those of ``train_classifier``.
    """
    at_least(2, judge_images=len(images_NCHW))
    shuffled = SeedStream(seed).generator("judge halves").permutation(len(labels_N))
    order = torch.from_numpy(shuffled).to(labels_N.device)
    order = order[labels_N[order].argsort(stable=True)]
    train, test = order[::2], order[1::2]

    judge = train_classifier(images_NCHW[train], labels_N[train], num_classes, seed, steps)
    right_N = (predicted_labels(judge, images_NCHW[test]) == labels_N[test]).double()
    by_class = [right_N[labels_N[test] == label].mean() for label in torch.unique(labels_N[test])]
    return JudgeAccuracy(right_N.mean().item(), torch.stack(by_class).mean().item())


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
    kernel_distance: float  # about 0 and up, as frechet_distance, and not larger for few images
    label_agreement: float  # 0 to 1: the class asked for; blind to variety
    downstream_accuracy: float  # 0 to 1, on all held-out images: use of samples as training data
    judge_accuracy: float  # 0 to 1: as downstream_accuracy, trained on half the real images
    judge_balanced_accuracy: float  # 0 to 1: mean over classes, as label_agreement
    within_class_variance: float  # of a pixel, mean over pixels and classes: variety, not realism
    real_within_class_variance: float  # of the held-out images
    held_out_images: int
    sample_count: int  # of each of the two draws: uniform and proportional labels
    classes: int  # that occur in the held-out images; samples are asked for these only
    judge_note: str
    seconds: float = field(compare=False)
    # As frechet_distance, by a second judge that saw drawn characters alone; None: no characters.
    stroke_frechet_distance: float | None = None

    def to_dict(self) -> dict[str, float | int | str]:
        """Return the numbers by name, fit for JSON; what was not measured is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


CHANCE_DEVIATIONS = 3.0


def metric_notes(metrics: Mapping[str, Any]) -> list[str]:
    """Return what a reader of the metrics must know first: there are none, or no class is shown.

    Label agreement is at chance where guessing would reach it with a probability of 0.1 %.

    Args:
        metrics: an ``EvaluationReport`` by name, or ``not_evaluated`` and why.
    """
    if why := metrics.get("not_evaluated"):
        return [f"no metrics: {why}"]
    agreement, classes = metrics.get("label_agreement"), metrics.get("classes", 1)
    if agreement is None or classes < 2:
        return []
    chance = 1 / classes
    deviation = math.sqrt(chance * (1 - chance) / metrics["sample_count"])
    if agreement > chance + CHANCE_DEVIATIONS * deviation:
        return []
    return [
        f"label agreement {agreement:.3f} is at chance, 1 of {classes} classes: the samples do not "
        f"show the classes asked for (the judge itself reads {metrics['judge_accuracy']:.3f} of "
        "the real images); look at the pictures, and whether clients failed, before any other "
        "number"
    ]


class HeldOutJudge:
    """Images that no client holds and a judge trained on them; measures any number of generators.

    Args:
        images_NCHW: float32 (N, C, H, W) in [0, 1], ink 1, paper 0. No client may train on them:
            what is measured on them is published without noise.
        labels_N: int64 (N,) in [0, ``num_classes``).
        num_classes: of the data set, whether or not all occur here.
        seed: of samples, judge, downstream classifier and splits. It is no part of the run: use
            the same for runs to be compared.
        classifier_steps: of every classifier; by default 30 for each class.

    Raises:
        ValueError: images or labels are not as described.
    """

    def __init__(
        self,
        images_NCHW: Tensor,
        labels_N: Tensor,
        num_classes: int,
        seed: int,
        classifier_steps: int | None = None,
    ) -> None:
        _require_labelled_images(images_NCHW, labels_N, num_classes)
        self._images, self._labels, self._num_classes = images_NCHW, labels_N, num_classes
        self._seed, self._steps = seed, classifier_steps
        training = images_NCHW, labels_N, num_classes, seed, classifier_steps
        self._judge = train_classifier(*training)
        self._on_unseen = judge_accuracy(*training)

    def report(
        self, sampler: Sampler, sample_count: int, classes: Collection[int] | None = None
    ) -> EvaluationReport:
        """Measure a generator.

        Samples are drawn twice: with as many of each class for the inception score, label agreement
        and downstream training, and in the held-out proportions for the Fréchet distance, which
        would otherwise count a difference of proportions as a fault. They are rounded to the greys
        of the held-out images. The sampler runs in batches of 500; the metrics run on the held-out
        images' device.

        Args:
            sampler: see ``Sampler``; its labels come on the held-out labels' device.
            sample_count: of each draw, at least 2.
            classes: measured, on their held-out images alone; None: all that occur there.

        Raises:
            ValueError: samples are not as described, or a class has no held-out image.
        """
        started = time.perf_counter()
        at_least(2, sample_count=sample_count)
        judge, seed = self._judge, self._seed
        images, labels = self._held_out_of(classes)
        uniform = uniform_labels(labels, sample_count)
        samples = self._drawn(sampler, uniform, "uniform")
        proportional = proportional_labels(labels, sample_count)
        matched_samples = self._drawn(sampler, proportional, "proportional")
        measured = len(torch.unique(labels))
        return EvaluationReport(
            inception_score=inception_score(judge, samples, seed),
            frechet_distance=frechet_distance(judge, images, matched_samples),
            kernel_distance=kernel_distance(
                ClassifierFeatures(judge), images, matched_samples, seed
            ),
            stroke_frechet_distance=stroke_frechet_distance(images, matched_samples),
            label_agreement=label_agreement(judge, samples, uniform),
            downstream_accuracy=downstream_accuracy(
                samples, uniform, images, labels, self._num_classes, seed, self._steps
            ),
            judge_accuracy=self._on_unseen.accuracy,
            judge_balanced_accuracy=self._on_unseen.balanced_accuracy,
            within_class_variance=within_class_variance(samples, uniform),
            real_within_class_variance=within_class_variance(images, labels),
            held_out_images=len(images),
            sample_count=sample_count,
            classes=measured,
            judge_note=(
                f"judged by a small CNN trained on {len(self._images)} held-out real images of "
                f"{len(torch.unique(self._labels))} of {self._num_classes} classes, not by "
                f"Inception-v3; from half of them it reaches {self._on_unseen.accuracy:.1%} on the "
                "other half"
            ),
            seconds=time.perf_counter() - started,
        )

    def _held_out_of(self, classes: Collection[int] | None) -> tuple[Tensor, Tensor]:
        """Return images and labels of these classes; of all, if None."""
        if classes is None:
            return self._images, self._labels
        if without := sorted(set(classes) - set(self._labels.tolist())):
            raise ValueError(f"labels={without} must occur among the held-out images; they do not")
        chosen = torch.isin(self._labels, torch.tensor(sorted(classes)))
        at_least(2, held_out_images=int(chosen.sum()))
        return self._images[chosen], self._labels[chosen]

    def _drawn(self, sampler: Sampler, labels_N: Tensor, purpose: str) -> Tensor:
        images = self._images
        drawn = draw_samples(sampler, labels_N, purpose, self._seed, image_shape_of(images))
        return in_greys_of(images, drawn.to(images.device))


def in_greys_of(images_NCHW: Tensor, samples_NCHW: Tensor) -> Tensor:
    """Return samples in the greys that occur in real images, each the nearest one.

    A scan has 256 at most. Images with more, resized ones say, leave samples as they are.
    """
    greys = torch.unique(images_NCHW)
    if len(greys) > MOST_GREYS:
        return samples_NCHW
    nearest: Tensor = greys[torch.bucketize(samples_NCHW, (greys[1:] + greys[:-1]) / 2)]
    return nearest


def within_class_variance(images_NCHW: Tensor, labels_N: Tensor) -> float:
    """Return the variance of a pixel over the images of a class, mean over pixels and classes.

    A generator whose classes collapsed to a shape each has nearly none.
    """
    classes = torch.unique(labels_N)
    of_class = [images_NCHW[labels_N == label].var(0, correction=0).mean() for label in classes]
    return float(torch.stack(of_class).mean())


def _require_labelled_images(images: Tensor, labels: Tensor, num_classes: int) -> None:
    at_least(1, num_classes=num_classes)
    at_least(2, held_out_images=len(images))
    if images.ndim != 4 or images.dtype != torch.float32:
        found = f"{images.dtype} {tuple(images.shape)}"
        raise ValueError(f"held-out images={found} must be torch.float32 (N, C, H, W)")
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError("held-out images must lie in [0, 1]")
    if labels.shape != (len(images),) or labels.dtype != torch.int64:
        found = f"{labels.dtype} {tuple(labels.shape)}"
        raise ValueError(f"held-out labels={found} must be torch.int64 ({len(images)},)")
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        found = f"{int(labels.min())} to {int(labels.max())}"
        raise ValueError(f"held-out labels from {found} must lie in [0, {num_classes})")


INVERTED_DIFFERENCE = 0.3


def require_ink_on_paper(samples_NCHW: Tensor, held_out_NCHW: np.ndarray) -> None:
    """Refuse grey samples whose ink and paper are surely swapped, by the mean of real images.

    Raises:
        ValueError: they are.
    """
    ink, real = float(samples_NCHW.mean()), float(held_out_NCHW.mean())
    grey = samples_NCHW.shape[1] == held_out_NCHW.shape[1] == 1
    if grey and abs(ink - real) > INVERTED_DIFFERENCE > 3 * abs(1 - ink - real):
        raise ValueError(
            f"samples have a mean of {ink:.2f}, held-out images of {real:.2f}: ink and paper are "
            "swapped; ink must be 1 (255) and paper 0"
        )


# Constant, so that every run on a data set is judged by the same classifier.
EVALUATION_SEED = 0


def held_out_judge(source: WriterSource, seed: int = EVALUATION_SEED) -> HeldOutJudge:
    """Return the judge of a data set: trained on the images that no client holds.

    Args:
        source: of the people that generators are trained on.
        seed: of the metrics, no part of a run.
    """
    held_out = source.held_out()
    images, labels = torch.from_numpy(held_out.images), torch.from_numpy(held_out.labels)
    return HeldOutJudge(images, labels, len(source.class_names), seed)
