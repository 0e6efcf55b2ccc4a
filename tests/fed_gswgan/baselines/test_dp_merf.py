from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fed_gswgan.baselines import dp_merf
from fed_gswgan.baselines.dp_merf import (
    FULL,
    SMALL,
    FittingSettings,
    RandomFeatures,
    SubpixelGenerator,
    embedding_distance,
    fit_to_embedding,
    mean_embedding,
    release_embedding,
)
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.privacy.mechanism import NeighboringRelation
from fed_gswgan.privacy.noise import SeededNoise

DELTA = 1e-5
FITTING = FittingSettings(
    steps=3, samples_per_class=3, learning_rate=0.01, final_learning_rate_share=0.5
)
TINY = replace(
    SMALL, frequencies=8, kernel_variances=(50.0,), latent_dim=2, hidden_width=5, channels=2,
    fitting=FITTING,
)  # fmt: skip


REPLACE, ZERO = NeighboringRelation.REPLACE_ONE, NeighboringRelation.ZERO_OUT
COUNT, CLASSES = 12, 3
FEATURES = RandomFeatures(2, 30, (1.0,), np.random.default_rng(0), torch.device("cpu"))
LABELS = torch.arange(COUNT) % CLASSES


def points(seed=0, scale=3.0):
    return scale * torch.randn((COUNT, 2), generator=torch.Generator().manual_seed(seed))


class Shift(nn.Module):
    """A point for each class, and latents around it."""

    def __init__(self):
        super().__init__()
        self.places = nn.Parameter(torch.zeros(CLASSES, 2))

    def forward(self, latents_BZ, labels_B):
        return self.places[labels_B] + 0.1 * latents_BZ


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_features_have_norm_one_wherever_the_point_lies(scale):
    features_NF = FEATURES(points(scale=scale))
    assert features_NF.shape == (COUNT, 60)
    assert features_NF.norm(dim=1) == pytest.approx(torch.ones(COUNT), abs=1e-6)


@pytest.mark.parametrize("variances", [(2.0,), (0.5, 8.0)])
def test_dot_products_approximate_the_mean_of_the_kernels(variances):
    features = RandomFeatures(2, 40_000, variances, np.random.default_rng(0), torch.device("cpu"))
    points_NP = points(scale=1.0)
    squared = torch.cdist(points_NP, points_NP).square()
    kernel = torch.stack([torch.exp(-squared / (2 * v)) for v in variances]).mean(0)
    assert features(points_NP) @ features(points_NP).T == pytest.approx(kernel, abs=0.03)
    assert kernel.min() < 0.3


def test_the_embedding_is_the_mean_over_all_points_in_the_column_of_the_class():
    expected = torch.zeros((60, CLASSES))
    for point, label in zip(points(), LABELS, strict=True):
        expected[:, label] += FEATURES(point[None])[0] / COUNT
    found = mean_embedding(FEATURES, points(), LABELS, CLASSES)
    assert found == pytest.approx(expected.double(), abs=1e-6)


def test_no_replaced_point_moves_the_embedding_by_more_than_the_sensitivity():
    before, moved = mean_embedding(FEATURES, points(), LABELS, CLASSES), []
    for index in range(COUNT):
        for label in range(CLASSES):
            for seed in range(20):
                changed, labels = points(), LABELS.clone()
                changed[index], labels[index] = points(seed)[0], label
                after = mean_embedding(FEATURES, changed, labels, CLASSES)
                moved.append((after - before).norm().item())
    assert 1 / COUNT < max(moved) <= 2 / COUNT + 1e-7


def test_two_is_the_sensitivity_of_some_features():
    # One frequency of pi: the features of 0 and of 1 are opposite.
    opposite = RandomFeatures(1, 1, (1.0,), np.random.default_rng(0), torch.device("cpu"))
    opposite._frequencies_WP.fill_(torch.pi)
    labels = torch.zeros(1, dtype=torch.int64)
    first = mean_embedding(opposite, torch.zeros((1, 1)), labels, 1)
    second = mean_embedding(opposite, torch.ones((1, 1)), labels, 1)
    assert (first - second).norm().item() == pytest.approx(REPLACE.sensitivity_multiple)


def test_a_point_that_is_zeroed_out_moves_the_embedding_by_one_over_n():
    before = mean_embedding(FEATURES, points(), LABELS, CLASSES)
    without = mean_embedding(FEATURES, points()[1:], LABELS[1:], CLASSES) * (COUNT - 1) / COUNT
    assert (before - without).norm().item() == pytest.approx(ZERO.sensitivity_multiple / COUNT)


@pytest.mark.parametrize(("relation", "multiple"), [(REPLACE, 2), (ZERO, 1)])
def test_the_noise_is_the_multiplier_times_the_sensitivity(relation, multiple):
    embedding = torch.zeros((20_000, CLASSES), dtype=torch.float64)
    noise = SeededNoise(np.random.default_rng(0))
    released = release_embedding(embedding, COUNT, relation, 0.7, noise)
    assert released.dtype == torch.float32
    assert released.std().item() == pytest.approx(0.7 * multiple / COUNT, rel=0.02)
    assert abs(released.mean().item()) < 0.01


def test_the_distance_of_a_batch_has_the_right_mean():
    released = mean_embedding(FEATURES, points(), LABELS, CLASSES).float()
    draws = torch.Generator().manual_seed(0)

    def batch(per_class):
        labels = torch.arange(CLASSES).repeat(per_class)
        return FEATURES(labels[:, None] + torch.randn((len(labels), 2), generator=draws))

    large = batch(50_000)
    own = large.view(-1, CLASSES, 60).mean(0).T / CLASSES
    exact = (own - released).square().sum().item()
    small = np.mean([embedding_distance(batch(2), released).item() for _ in range(4000)])
    assert small == pytest.approx(exact, abs=0.01)
    assert embedding_distance(large, released).item() == pytest.approx(exact, abs=1e-4)


def test_a_generator_finds_each_class():
    settings = FittingSettings(
        steps=150, samples_per_class=20, learning_rate=0.05, final_learning_rate_share=0.1
    )
    places = torch.tensor([[1.0, 0.0], [-0.5, 0.5], [0.0, -1.0]])
    around = places[LABELS] + 0.1 * points(scale=1.0)
    released = mean_embedding(FEATURES, around, LABELS, CLASSES).float()
    generator, told = Shift(), []
    fit_to_embedding(
        generator, 2, FEATURES, released, settings, np.random.default_rng(0), told.append
    )
    assert generator.places.detach() == pytest.approx(places, abs=0.15)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert not generator.training


def generator():
    torch.manual_seed(0)
    return SubpixelGenerator(IMAGE_SHAPE, latent_dim=3, num_classes=4, hidden_width=6, channels=4)


def test_after_training_a_sample_depends_on_its_own_row_alone():
    network, latents = generator(), torch.randn(5, 3)
    labels = torch.arange(5) % 4
    network(latents, labels)
    network.eval()
    alone = network(latents[:1], labels[:1])
    assert torch.allclose(network(latents, labels)[:1], alone, atol=1e-6)


def test_images_start_as_background():
    samples = generator()(torch.randn(20, 3), torch.arange(20) % 4)
    assert 0.05 < samples.mean() < 0.25


def test_the_full_preset_has_the_published_sizes():
    assert (FULL.frequencies, FULL.kernel_variances, FULL.latent_dim) == (500, (105.0,), 5)
    assert SMALL.frequencies / len(SMALL.kernel_variances) == FULL.frequencies


def trained(images_and_labels, epsilon=10.0, classes=4, settings=TINY):
    return dp_merf.train(*images_and_labels, classes, settings, epsilon, DELTA, 0)


@pytest.mark.parametrize(("epsilon", "noise"), [(10.0, 0.500), (1.0, 3.73)])
def test_known_noise_of_one_gaussian(data, epsilon, noise):
    baseline = trained(data(), epsilon)
    assert 1 / baseline.releases[0].mu == pytest.approx(noise, abs=5e-3)


def test_the_published_accounting_is_a_looser_bound_on_the_same_noise(data):
    baseline, orders = trained(data()), np.linspace(1.001, 100, 200_000)
    bound = orders * baseline.releases[0].mu ** 2 / 2 + np.log(1 / DELTA) / (orders - 1)
    assert baseline.published_epsilon == pytest.approx(bound.min(), rel=1e-6)
    assert baseline.published_epsilon > 10


def test_data_are_read_through_the_embedding_alone(data, monkeypatch):
    fixed = torch.full((16, 4), 0.01, dtype=torch.float64)
    monkeypatch.setattr(dp_merf, "mean_embedding", lambda *arguments: fixed)
    images_NCHW, labels_N = data()
    first, second = trained((images_NCHW, labels_N)), trained((1 - images_NCHW, labels_N.flip(0)))
    labels_B = torch.arange(4)
    assert torch.equal(first.sampler(labels_B, 1), second.sampler(labels_B, 1))


def test_samples_of_bright_and_dark_classes_differ():
    labels_N = torch.arange(400) % 2
    images_NCHW = labels_N.float()[:, None, None, None].expand(-1, 1, 28, 28)
    fitting = replace(FITTING, steps=60, samples_per_class=10, learning_rate=0.03)
    settings = replace(TINY, frequencies=50, kernel_variances=(200.0,), fitting=fitting)
    baseline = trained((images_NCHW, labels_N), 10.0, 2, settings)
    dark, bright = baseline.sampler(torch.tensor([0, 1]), 0).mean((1, 2, 3))
    assert dark < 0.2
    assert bright > 0.8
