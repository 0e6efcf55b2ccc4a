import gc

import numpy as np
import pytest
import torch

from fed_gswgan.evaluation.distances import kernel_distance
from fed_gswgan.evaluation.scores import ClassifierFeatures, FeatureExtractor


class FirstPixels(FeatureExtractor):
    """Takes the first pixels for features."""

    num_features = 12
    description = "pixels"

    def forward(self, images):
        return images.flatten(1)[:, : self.num_features].double()


def reference(first, second):
    """The unbiased estimate, one pair after the other."""

    def kernel(x, y):
        return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3

    m, n = len(first), len(second)
    within = sum(kernel(first[i], first[j]) for i in range(m) for j in range(m) if i != j)
    other = sum(kernel(second[i], second[j]) for i in range(n) for j in range(n) if i != j)
    across = sum(kernel(x, y) for x in first for y in second)
    return within / (m * (m - 1)) + other / (n * (n - 1)) - 2 * across / (m * n)


def images(count, seed, scale=1.0):
    return scale * torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(seed))


def test_one_subset_of_everything_equals_the_formula_pair_by_pair():
    real, samples = images(30, 0), images(30, 1, scale=0.7)
    expected = reference(*(FirstPixels()(part).tolist() for part in (real, samples)))
    assert abs(expected) > 0.01
    found = kernel_distance(FirstPixels(), real, samples, 0, subsets=1, subset_size=30)
    assert found == pytest.approx(expected, rel=1e-9)


def test_many_subsets_come_near_the_estimate_from_everything():
    real, samples = images(400, 0), images(300, 1, scale=0.7)
    one, other = (FirstPixels()(part).numpy() for part in (real, samples))
    kernels = [(a @ b.T / 12 + 1) ** 3 for a, b in ((one, one), (other, other), (one, other))]
    expected = sum(
        (kernel.sum() - np.trace(kernel)) / (len(kernel) * (len(kernel) - 1))
        for kernel in kernels[:2]
    )
    expected -= 2 * kernels[2].mean()
    found = kernel_distance(FirstPixels(), real, samples, 0, subsets=200, subset_size=100)
    assert found == pytest.approx(expected, rel=0.02)


def test_equal_distributions_are_as_often_below_zero_as_above():
    found = [
        kernel_distance(FirstPixels(), images(60, 2 * seed), images(60, 2 * seed + 1), seed)
        for seed in range(30)
    ]
    assert 5 < sum(distance < 0 for distance in found) < 25


def test_images_are_nearer_than_a_collapsed_class_and_noise(judge, spots):
    labels = spots.labels(300)
    extractor = ClassifierFeatures(judge)
    real = spots.draw(labels, 5)
    alike, collapsed, noise = (
        kernel_distance(extractor, real, samples, 0, subsets=10, subset_size=200)
        for samples in (
            spots.draw(labels, 6),
            spots.draw(torch.zeros_like(labels), 6),
            spots.noise(labels, 6),
        )
    )
    assert abs(alike) < collapsed / 5
    assert abs(alike) < noise / 5


@pytest.mark.usefixtures("keeps_global_random_state")
def test_the_seed_decides_the_subsets(recwarn):
    gc.collect()
    recwarn.clear()  # of what another test left to be collected
    real, samples = images(50, 0), images(50, 1)
    first, again, other = (
        kernel_distance(FirstPixels(), real, samples, seed, subsets=3, subset_size=20)
        for seed in (0, 0, 1)
    )
    assert first == again != other
    assert not recwarn.list


def test_a_single_image_is_refused():
    with pytest.raises(ValueError, match="kernel-distance-samples=1"):
        kernel_distance(FirstPixels(), images(5, 0), images(1, 1), 0)
