import numpy as np
import pytest
import torch

from fed_gswgan.baselines.random_features import RandomFeatures


def features(frequencies=40, variances=(2.0,), seed=0):
    randomness = np.random.default_rng(seed)
    return RandomFeatures(3, frequencies, variances, randomness, torch.device("cpu"))


def points(count=50, scale=1.0):
    return scale * torch.randn((count, 3), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_features_have_norm_one_wherever_the_point_lies(scale):
    norms = features()(points(scale=scale)).norm(dim=1)
    assert norms == pytest.approx(torch.ones(50), abs=1e-6)


@pytest.mark.parametrize("variances", [(2.0,), (0.5, 8.0)])
def test_dot_products_approximate_the_mean_of_the_kernels(variances):
    vectors = features(40_000, variances)(points(6))
    squared = torch.cdist(points(6), points(6)).square()
    kernel = torch.stack([torch.exp(-squared / (2 * v)) for v in variances]).mean(0)
    assert vectors @ vectors.T == pytest.approx(kernel, abs=0.03)
    assert kernel.min() < 0.3


def test_there_are_two_features_a_frequency():
    assert features(7).count == 14
    assert features(7)(points()).shape == (50, 14)


def test_frequencies_depend_on_the_randomness_alone():
    assert torch.equal(features(seed=3)(points()), features(seed=3)(points()))
    assert not torch.equal(features(seed=3)(points()), features(seed=4)(points()))
