import copy

import numpy as np
import pytest
import scipy.linalg
import torch

from fed_gswgan.evaluation.distances import frechet_distance, frechet_distance_in
from fed_gswgan.evaluation.scores import FeatureExtractor


def reference(first: np.ndarray, second: np.ndarray) -> float:
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
def test_it_equals_the_formula_in_numpy(judge, spots, count):
    images = spots.draw(spots.labels(count), 5)
    samples = (0.7 * spots.draw(spots.labels(count), 6)).clamp(0, 1)
    expected = reference(features(judge, images), features(judge, samples))
    assert expected > 0.01
    assert frechet_distance(judge, images, samples) == pytest.approx(expected, rel=1e-5)


class FirstPixels(FeatureExtractor):
    """Takes the first pixels for features."""

    num_features = 100
    description = "pixels"

    def forward(self, images):
        return images.flatten(1)[:, : self.num_features].double()


def test_it_equals_the_formula_in_any_features():
    draws = torch.Generator().manual_seed(0)
    images = torch.rand(500, 1, 28, 28, generator=draws)
    samples = 0.8 * torch.rand(300, 1, 28, 28, generator=draws)
    expected = reference(*(FirstPixels()(part).numpy() for part in (images, samples)))
    assert frechet_distance_in(FirstPixels(), images, samples) == pytest.approx(expected, rel=1e-5)


def test_dead_features_do_no_harm(judge, spots):
    images = spots.draw(spots.labels(300), 5)
    samples = spots.noise(spots.labels(300), 6)
    judge = copy.deepcopy(judge)
    with torch.no_grad():
        judge.features[-2].weight[:20] = 0
        judge.features[-2].bias[:20] = -1
    assert (features(judge, images)[:, :20] == 0).all()
    expected = reference(features(judge, images), features(judge, samples))
    assert frechet_distance(judge, images, samples) == pytest.approx(expected, rel=1e-5)


def test_identical_sets_are_nearly_nothing_apart_and_never_less(judge, spots):
    for count in (2, 30, 300):
        images = spots.draw(spots.labels(count), 5)
        assert 0 <= frechet_distance(judge, images, images) < 1e-4


def test_order_does_not_matter(judge, spots):
    images = spots.draw(spots.labels(300), 5)
    samples = spots.draw(spots.labels(300), 6)
    assert frechet_distance(judge, images, samples) == pytest.approx(
        frechet_distance(judge, samples.flip(0), images.flip(0)), rel=1e-6
    )


def test_images_are_nearer_than_a_collapsed_class_and_that_nearer_than_noise(judge, spots):
    labels = spots.labels(400)
    images = spots.draw(labels, 5)
    alike = frechet_distance(judge, images, spots.draw(labels, 6))
    collapsed = frechet_distance(judge, images, spots.draw(torch.zeros_like(labels), 6))
    noise = frechet_distance(judge, images, spots.noise(labels, 6))
    assert alike < collapsed / 5
    assert alike < noise / 5


def test_a_single_image_is_refused(judge, spots):
    images = spots.draw(spots.labels(8), 5)
    with pytest.raises(ValueError, match="frechet-distance-samples=1"):
        frechet_distance(judge, images, images[:1])


@pytest.mark.usefixtures("keeps_global_random_state")
def test_it_draws_nothing(judge, spots):
    images = spots.draw(spots.labels(40), 5)
    samples = spots.draw(spots.labels(40), 6)
    first = frechet_distance(judge, images, samples)
    assert first == frechet_distance(judge, images, samples)
