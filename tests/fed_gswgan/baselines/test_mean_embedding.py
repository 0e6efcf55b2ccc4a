import numpy as np
import pytest
import torch
from torch import nn

from fed_gswgan.baselines.mean_embedding import (
    FittingSettings,
    embedding_distance,
    fit_to_embedding,
    mean_embedding,
    release_embedding,
)
from fed_gswgan.baselines.random_features import RandomFeatures
from fed_gswgan.privacy.mechanism import NeighboringRelation
from fed_gswgan.privacy.noise import SeededNoise

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


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"steps": 0}, "steps=0 must"),
        ({"samples_per_class": 1}, "samples-per-class=1 must"),
        ({"learning_rate": 0.0}, "learning-rate=0.0 must"),
        ({"final_learning_rate_share": 0.0}, "final-learning-rate-share=0.0 must"),
    ],
)
def test_nonsense_is_named(changed, said):
    settings = dict(steps=1, samples_per_class=2, learning_rate=0.1, final_learning_rate_share=1.0)
    with pytest.raises(ValueError, match=f"^{said}"):
        FittingSettings(**{**settings, **changed})
