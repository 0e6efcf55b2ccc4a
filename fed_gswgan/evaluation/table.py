"""Metrics of one row of a results table."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from fed_gswgan.data.whole_dataset import WholeDataset
from fed_gswgan.evaluation.accuracy import (
    TWELVE_CLASSIFIERS,
    average_accuracy,
    calibrated_accuracy,
    classifier_accuracies,
    ratio_of_mean_accuracies,
)
from fed_gswgan.evaluation.classifier import Progress, accuracy
from fed_gswgan.evaluation.distances import (
    MetricSize,
    frechet_distance_in,
    inception_score,
    kernel_distance,
)
from fed_gswgan.evaluation.lenet import cnn_accuracy
from fed_gswgan.evaluation.samplers import Sampler, draw_samples
from fed_gswgan.evaluation.scores import (
    ClassifierFeatures,
    FeatureExtractor,
    InceptionUnavailable,
    ScoreClassifier,
    inception_features,
    train_score_classifier,
)
from fed_gswgan.seeding import SeedStream


@dataclass(frozen=True, kw_only=True)
class TableMetrics:
    """One row of a table, with what each figure rests on.

    The accuracies are those of classifiers trained on the samples, on all real test images. Only
    rows of the same data set, size and ``features`` are to be compared.
    """

    dataset: str
    size: str
    seed: int
    inception_score: float  # 1 to the number of classes; its judge is no Inception-v3
    frechet_distance: float  # 0 and up, low is good; FID where ``features`` is Inception-v3
    kernel_distance: float  # about 0 and up, low is good; KID where ``features`` is Inception-v3
    features: str  # that both distances are measured in
    mlp_accuracy: float
    cnn_accuracy: float  # the LeNet's
    average_accuracy: float  # of the twelve classifiers, to which the LeNet does not belong
    calibrated_accuracy: float | None  # mean over classifiers of the ratio to real images
    ratio_of_mean_accuracies: float | None  # the other reading of "calibrated"
    classifier_accuracies: Mapping[str, float]
    score_classifier: str
    score_classifier_accuracy: float  # of the inception score's judge on the real test images
    classifier_samples: int
    score_samples: int
    distance_samples: int
    distance_images: int
    test_images: int
    split: str
    notes: tuple[str, ...]
    seconds: float = field(compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything by name, fit for JSON."""
        return asdict(self) | {"notes": list(self.notes)}


@dataclass(frozen=True, kw_only=True)
class RealScores(TableMetrics):
    """The row of real images, which calibrates the others; its own calibrated accuracy is 1."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RealScores":
        """Return what ``to_dict`` wrote.

        Raises:
            ValueError: a value is missing or unknown; measure the real images again.
        """
        names = {entry.name for entry in fields(cls)}
        if different := sorted(names ^ set(values)):
            raise ValueError(
                f"scores of real images: {', '.join(different)} must be there once and nothing "
                "else; measure them again"
            )
        return cls(**{**values, "notes": tuple(values["notes"])})


def table_metrics(
    sampler: Sampler,
    data: WholeDataset,
    size: MetricSize,
    seed: int,
    real: RealScores | None,
    progress: Progress,
    judge: ScoreClassifier | None = None,
) -> TableMetrics:
    """Measure a generator on every column of the published tables.

    Samples have as many of each class and, like real images, 256 greys. The real training images
    train the judge of the inception score and are the reference of the distances; the test images
    serve the accuracies alone. Networks run on the data's device.

    Args:
        sampler: see ``Sampler``; its labels come on the data's device.
        data: of the generator's training.
        size: ``SMALL``, ``FULL`` or ``FULL_ON_CPU``.
        seed: of everything drawn here, samples included; no part of the training.
        real: what ``real_scores`` gave for the same data set and size; None: no calibration.
        progress: told each step.
        judge: what ``table_judge`` gave for the same data, size and seed, to train it once for
            many generators; None: it is trained here.

    Raises:
        ValueError: samples are not as described, or ``real`` belongs to other data or sizes.
    """
    started = time.perf_counter()
    if real is not None and (real.dataset, real.size) != (data.dataset, size.name):
        raise ValueError(
            f"real={real.dataset}, {real.size} must be measured on {data.dataset}, {size.name}"
        )
    classes = len(data.class_names)
    device = data.train_images_NCHW.device
    labels = torch.arange(size.classifier_samples, device=device) % classes
    samples = in_bytes(
        draw_samples(sampler, labels, "table", seed, data.spec.image_shape).to(device)
    )
    progress(f"{len(samples)} samples drawn")
    values = _measure(
        training=(samples, labels),
        scored_NCHW=samples,
        data=data,
        size=size,
        seed=seed,
        progress=progress,
        judge=judge or table_judge(data, size, seed, progress),
        on_real=None if real is None else real.classifier_accuracies,
    )
    return TableMetrics(
        **values,
        split=f"trained on samples, as many of each class; tested on {_test_set(data)}",
        seconds=time.perf_counter() - started,
    )


def real_scores(
    data: WholeDataset,
    size: MetricSize,
    seed: int,
    progress: Progress,
    judge: ScoreClassifier | None = None,
) -> RealScores:
    """Measure real images as if they were samples: the reference row of a table.

    The classifiers train on real training images, as many as there would be samples. Inception
    score and distances take the test images for samples, since the judge has learned the training
    images and the distances' reference would contain them.

    Args:
        data: the data set.
        size: as for the generators.
        seed: of everything drawn here.
        progress: told each step.
        judge: as for ``table_metrics``.
    """
    started = time.perf_counter()
    chosen = _random_rows(data.train_images_NCHW, size.classifier_samples, "real training", seed)
    scored = _random_rows(data.test_images_NCHW, size.classifier_samples, "real scored", seed)
    values = _measure(
        training=(data.train_images_NCHW[chosen], data.train_labels_N[chosen]),
        scored_NCHW=data.test_images_NCHW[scored],
        data=data,
        size=size,
        seed=seed,
        progress=progress,
        judge=judge or table_judge(data, size, seed, progress),
        on_real=None,
    )
    values["calibrated_accuracy"] = values["ratio_of_mean_accuracies"] = 1.0
    return RealScores(
        **values,
        split=(
            f"trained on real training images; tested on {_test_set(data)}, "
            "from which inception score and distances take the samples"
        ),
        seconds=time.perf_counter() - started,
    )


def table_judge(
    data: WholeDataset, size: MetricSize, seed: int, progress: Progress
) -> ScoreClassifier:
    """Train the judge of the inception score on all real training images."""
    judge = train_score_classifier(
        data.train_images_NCHW,
        data.train_labels_N,
        len(data.class_names),
        size.score_classifier,
        size.score_training,
        seed,
        progress,
    )
    progress(f"judge of the inception score trained: {size.score_classifier}")
    return judge


def _measure(
    *,
    training: tuple[Tensor, Tensor],
    scored_NCHW: Tensor,
    data: WholeDataset,
    size: MetricSize,
    seed: int,
    progress: Progress,
    judge: ScoreClassifier,
    on_real: Mapping[str, float] | None,
) -> dict[str, Any]:
    extractor, notes = _extractor(judge, data, size)
    reference = data.train_images_NCHW[
        _random_rows(data.train_images_NCHW, size.distance_images, "distance images", seed)
    ]
    compared = scored_NCHW[
        _random_rows(scored_NCHW, size.distance_samples, "distance samples", seed)
    ]
    score = inception_score(judge, scored_NCHW, seed)
    frechet = frechet_distance_in(extractor, reference, compared)
    kernel = kernel_distance(extractor, reference, compared, seed)
    progress(f"inception score {score:.3f}, distances {frechet:.3f} and {kernel:.5f}")
    tested = data.test_images_NCHW, data.test_labels_N
    cnn = cnn_accuracy(*training, *tested, len(data.class_names), seed, progress, size.lenet_epochs)
    accuracies = classifier_accuracies(
        *training, *tested, seed, progress, size.linear_svc_iterations
    )
    notes += [f"{name}: {entry.today}" for name, entry in TWELVE_CLASSIFIERS.items() if entry.today]
    return dict(
        dataset=data.dataset,
        size=size.name,
        seed=seed,
        inception_score=score,
        frechet_distance=frechet,
        kernel_distance=kernel,
        features=extractor.description,
        mlp_accuracy=accuracies["mlp"],
        cnn_accuracy=cnn,
        average_accuracy=average_accuracy(accuracies),
        calibrated_accuracy=None if on_real is None else calibrated_accuracy(accuracies, on_real),
        ratio_of_mean_accuracies=(
            None if on_real is None else ratio_of_mean_accuracies(accuracies, on_real)
        ),
        classifier_accuracies=accuracies,
        score_classifier=_described(size),
        score_classifier_accuracy=accuracy(judge, *tested),
        classifier_samples=len(training[0]),
        score_samples=len(scored_NCHW),
        distance_samples=len(compared),
        distance_images=len(reference),
        test_images=len(tested[0]),
        notes=(
            f"LeNet: {size.lenet_epochs} epochs, the last one counts",
            f"linear_svc: {size.linear_svc_iterations} iterations at most",
            "samples are rounded to 256 greys, which is all that real images have",
            *notes,
        ),
    )


def _extractor(
    judge: ScoreClassifier, data: WholeDataset, size: MetricSize
) -> tuple[FeatureExtractor, list[str]]:
    if size.features == "inception":
        try:
            return inception_features(data.train_images_NCHW.device), []
        except InceptionUnavailable as error:
            note = f"distances are not FID and KID: {error}"
    else:
        note = "distances are not FID and KID: this size takes the judge's features"
    return ClassifierFeatures(judge, f"classifier: {_described(size)}"), [note]


def in_bytes(images_NCHW: Tensor) -> Tensor:
    """Round to the 256 greys of an image file, float32 in [0, 1].

    Real images have no others, so no metric can tell samples by the finer ones; and trees, which
    sort every pixel, take a third of the time.
    """
    return (images_NCHW * 255).round() / 255


def _described(size: MetricSize) -> str:
    unit = "epochs" if size.score_classifier == "vgg11" else "steps"
    return f"{size.score_classifier}, {size.score_training} {unit} on real training images"


def _random_rows(images_NCHW: Tensor, count: int, purpose: str, seed: int) -> Tensor:
    """Return ``count`` different row numbers, or all rows in order where there are no more."""
    if count >= len(images_NCHW):
        return torch.arange(len(images_NCHW), device=images_NCHW.device)
    order = SeedStream(seed).generator(f"table {purpose}").permutation(len(images_NCHW))
    return torch.from_numpy(order[:count]).to(images_NCHW.device)


def _test_set(data: WholeDataset) -> str:
    return f"the {len(data.test_images_NCHW)} real test images"
