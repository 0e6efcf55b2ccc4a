"""All columns of the published tables for one generator, and for real images in its place."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fed_gswgan.data.whole_dataset import WholeDataset
from fed_gswgan.evaluation.calibrated_accuracy import (
    average_accuracy,
    calibrated_accuracy,
    ratio_of_mean_accuracies,
)
from fed_gswgan.evaluation.classifier import accuracy
from fed_gswgan.evaluation.features import ClassifierFeatures, FeatureExtractor
from fed_gswgan.evaluation.frechet_distance import frechet_distance_in
from fed_gswgan.evaluation.inception_features import InceptionUnavailable, inception_features
from fed_gswgan.evaluation.inception_score import inception_score
from fed_gswgan.evaluation.kernel_distance import kernel_distance
from fed_gswgan.evaluation.lenet import cnn_accuracy
from fed_gswgan.evaluation.metric_size import MetricSize
from fed_gswgan.evaluation.progress import Progress
from fed_gswgan.evaluation.sampler import Sampler, draw_samples
from fed_gswgan.evaluation.score_classifier import ScoreClassifier, train_score_classifier
from fed_gswgan.evaluation.table_row import RealScores, TableMetrics
from fed_gswgan.evaluation.twelve_classifiers import TWELVE_CLASSIFIERS, classifier_accuracies
from fed_gswgan.seeding import SeedStream


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
    samples = in_bytes(draw_samples(sampler, labels, "table", seed).to(device))
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
