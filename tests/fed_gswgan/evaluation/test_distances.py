from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from fed_gswgan.evaluation.distances import (
    FULL,
    FULL_ON_CPU,
    SMALL,
    frechet_distance,
    inception_score,
    kernel_distance,
    metric_size,
    nearest_distances,
    stroke_frechet_distance,
)
from fed_gswgan.evaluation.scores import ClassifierFeatures, FeatureExtractor


def frechet_by_roots(first: np.ndarray, second: np.ndarray) -> float:
    """Through two symmetric roots: Tr((S S')^(1/2)) = Tr((S^(1/2) S' S^(1/2))^(1/2))."""
    difference = first.mean(axis=0) - second.mean(axis=0)
    covariance, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    values, vectors = scipy.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T
    cross = np.sqrt(np.clip(scipy.linalg.eigvalsh(root @ other @ root), 0, None)).sum()
    return float(difference @ difference + np.trace(covariance) + np.trace(other) - 2 * cross)


def features(judge, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return judge.features(images).double().numpy()


@pytest.mark.parametrize("count", [1200, 300, 40])  # 40 images: both covariances are singular
def test_frechet_distance_equals_the_formula_in_numpy(judge, spots, count):
    images = spots.draw(spots.labels(count), 5)
    samples = (0.7 * spots.draw(spots.labels(count), 6)).clamp(0, 1)
    expected = frechet_by_roots(features(judge, images), features(judge, samples))
    assert expected > 0.01
    assert frechet_distance(judge, images, samples) == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_of_equal_sets_is_zero(judge, spots):
    for count in (2, 30, 300):
        images = spots.draw(spots.labels(count), 5)
        assert 0 <= frechet_distance(judge, images, images) < 1e-4


class FirstPixels(FeatureExtractor):
    """Takes the first pixels for features."""

    num_features = 12
    description = "pixels"

    def forward(self, images):
        return images.flatten(1)[:, : self.num_features].double()


def kernel_distance_by_pairs(first, second):
    """The unbiased estimate, one pair after the other."""

    def kernel(x, y):
        return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3

    m, n = len(first), len(second)
    within = sum(kernel(first[i], first[j]) for i in range(m) for j in range(m) if i != j)
    other = sum(kernel(second[i], second[j]) for i in range(n) for j in range(n) if i != j)
    across = sum(kernel(x, y) for x in first for y in second)
    return within / (m * (m - 1)) + other / (n * (n - 1)) - 2 * across / (m * n)


def uniform_images(count, seed, scale=1.0):
    return scale * torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(seed))


def test_kernel_distance_equals_the_formula_pair_by_pair():
    real, samples = uniform_images(30, 0), uniform_images(30, 1, scale=0.7)
    expected = kernel_distance_by_pairs(*(FirstPixels()(part).tolist() for part in (real, samples)))
    assert abs(expected) > 0.01
    found = kernel_distance(FirstPixels(), real, samples, 0, subsets=1, subset_size=30)
    assert found == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_is_unbiased():
    found = [
        kernel_distance(
            FirstPixels(), uniform_images(60, 2 * seed), uniform_images(60, 2 * seed + 1), seed
        )
        for seed in range(30)
    ]
    assert 5 < sum(distance < 0 for distance in found) < 25


class ReadsLogits(nn.Module):
    """Takes its logits from the first pixels of the image."""

    def __init__(self, num_classes: int, scale: float) -> None:
        super().__init__()
        self.num_classes, self.scale = num_classes, scale

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, : self.num_classes] * self.scale


def one_hot_images(labels: torch.Tensor) -> torch.Tensor:
    images = torch.zeros(len(labels), 28 * 28)
    images[torch.arange(len(labels)), labels] = 1
    return images.reshape(-1, 1, 28, 28)


def inception_score_in_numpy(logits: np.ndarray) -> float:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    marginal = p.mean(axis=0)
    return float(np.exp((p * np.log(p / marginal)).sum(axis=1).mean()))


def test_inception_score_equals_the_formula_in_numpy(monkeypatch):
    monkeypatch.setattr("fed_gswgan.evaluation.distances.SPLITS", 1)
    images = torch.rand(1100, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    judge = ReadsLogits(num_classes=6, scale=4.0)
    expected = inception_score_in_numpy(judge(images).double().numpy())
    assert inception_score(judge, images, seed=0) == pytest.approx(expected, rel=1e-10)


def test_sure_and_even_samples_reach_nearly_the_number_of_classes():
    images = one_hot_images(torch.arange(4000) % 5)
    score = inception_score(ReadsLogits(num_classes=5, scale=50.0), images, seed=0)
    assert 4.9 < score <= 5 + 1e-9


def test_one_class_only_scores_one_even_where_others_underflow_in_float32():
    images = one_hot_images(torch.zeros(100, dtype=torch.int64))
    score = inception_score(ReadsLogits(num_classes=5, scale=300.0), images, seed=0)
    assert score == pytest.approx(1)


@pytest.mark.parametrize("count", [2, 3, 19, 21])
def test_few_samples_give_a_finite_score(count):
    images = one_hot_images(torch.arange(count) % 5)
    assert 1 - 1e-9 <= inception_score(ReadsLogits(5, scale=9.0), images, seed=0) <= 5


def test_full_is_the_published_protocol():
    assert FULL.classifier_samples == 60_000
    assert FULL.lenet_epochs == 50
    assert (FULL.score_classifier, FULL.score_training) == ("vgg11", 50)
    assert FULL.features == "inception"
    assert (FULL.distance_samples, FULL.distance_images) == (20_000, 60_000)


def test_a_preset_s_sizes_are_those_that_the_device_can_bear():
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    assert metric_size("small", cpu) == metric_size("small", cuda) == SMALL
    assert metric_size("full", cuda) == FULL
    assert metric_size("full", cpu) == FULL_ON_CPU


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("classifier_samples", 1),
        ("lenet_epochs", 0),
        ("score_classifier", "resnet"),
        ("score_training", 0),
        ("features", "pixels"),
        ("distance_samples", 1),
        ("distance_images", 1),
    ],
)
def test_a_size_out_of_range_is_refused_by_name(setting, value):
    with pytest.raises(ValueError, match=setting.replace("_", "-")):
        replace(SMALL, **{setting: value})


def by_strokes(_, images, samples):
    return stroke_frechet_distance(images, samples)


def frechet(judge, images, samples):
    return frechet_distance(judge, images, samples)


def kernel(judge, images, samples):
    extractor = ClassifierFeatures(judge)
    return kernel_distance(extractor, images, samples, 0, subsets=10, subset_size=200)


@pytest.mark.usefixtures("keeps_global_random_state")
@pytest.mark.parametrize("distance", [frechet, kernel, by_strokes])
def test_images_are_nearer_than_a_collapsed_class_and_noise(judge, spots, distance):
    labels = spots.labels(400)
    images, alike = spots.draw(labels, 5), spots.draw(labels, 6)
    near = abs(distance(judge, images, alike))
    assert near < distance(judge, images, spots.draw(torch.zeros_like(labels), 6)) / 5
    assert near < distance(judge, images, spots.noise(labels, 6)) / 5
    assert near == abs(distance(judge, images, alike))


def test_the_second_judge_has_nothing_to_say_of_other_images():
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert stroke_frechet_distance(images, images) is None


def test_a_single_sample_is_refused(judge, spots):
    images = spots.draw(spots.labels(8), 5)
    with pytest.raises(ValueError, match="frechet-distance-samples=1"):
        frechet(judge, images, images[:1])
    with pytest.raises(ValueError, match="kernel-distance-samples=1"):
        kernel(judge, images, images[:1])
    with pytest.raises(ValueError, match="samples=1"):
        inception_score(judge, images[:1], seed=0)


def test_the_nearest_of_the_others_counts():
    images = torch.zeros(3, 1, 2, 2)
    images[1, 0, 0] = 1.0
    others = torch.zeros(2, 1, 2, 2)
    others[0], others[1, 0, 0, 0] = 1.0, 1.0
    assert nearest_distances(images, others).tolist() == [1, 1, 1]
    assert nearest_distances(others, others).tolist() == [0, 0]
