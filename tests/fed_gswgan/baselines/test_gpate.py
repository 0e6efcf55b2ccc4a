import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fed_gswgan.baselines.gpate import BINS, GPATESettings, confident_winners, train_gpate, vote
from fed_gswgan.privacy.declared_releases import epsilon_of
from fed_gswgan.privacy.gaussian import gaussian_mu
from fed_gswgan.privacy.noise_source import SeededNoise

DELTA = 1e-5
TINY = GPATESettings(
    teachers=6,
    teacher_width=4,
    teacher_learning_rate=1e-2,
    teacher_steps=1,
    teacher_batch_size=3,
    steps=3,
    batch_size=2,
    projection_dim=4,
    generator="slim",
    generator_width=4,
    generator_learning_rate=2e-3,
    latent_dim=10,
)


def data(count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.rand((count, 1, 28, 28), generator=generator), torch.arange(count) % 4


def train(settings, seed=0, epsilon=10.0, progress=lambda share: None):
    return train_gpate(*data(), 4, settings, epsilon, DELTA, seed, progress)


class NoNoise:
    def add_noise(self, values: np.ndarray, stddev: float) -> np.ndarray:
        return np.asarray(values, dtype=np.float64)


def test_all_queries_together_stay_within_the_epsilon_asked_for():
    baseline = train(TINY)
    assert 9.9 < epsilon_of(baseline.releases, DELTA) <= 10
    assert {release.rounds for release in baseline.releases} == {3 * 2 * 4}
    mu_squared = sum(release.rounds * release.mu**2 for release in baseline.releases)
    assert math.sqrt(mu_squared) == pytest.approx(gaussian_mu(10, DELTA), rel=2e-3)


def test_a_query_costs_two_over_votes_noise_squared_and_one_over_threshold_noise_squared():
    votes, threshold = TINY.releases(50.0)
    assert votes.mu**2 == pytest.approx(2 / 50**2)
    assert threshold.mu**2 == pytest.approx(1 / 300**2)


def test_another_teacher_moves_counts_by_root_two_and_the_largest_by_one():
    draws = torch.Generator().manual_seed(0)
    coordinates_MBK = torch.randn(9, 3, 4, generator=draws)
    for outlier in (torch.full((3, 4), math.nan), torch.full((3, 4), 1e30), torch.randn(3, 4)):
        changed_MBK = coordinates_MBK.clone()
        changed_MBK[5] = outlier
        before_BKV, after_BKV = vote(coordinates_MBK, 1.0), vote(changed_MBK, 1.0)
        assert (after_BKV.sum(axis=2) == 9).all()
        squared_BK = ((after_BKV - before_BKV) ** 2).sum(axis=2)
        assert set(squared_BK.ravel().tolist()) <= {0, 2}
        assert np.abs(after_BKV.max(axis=2) - before_BKV.max(axis=2)).max() <= 1


def test_votes_go_to_the_bin_of_the_coordinate():
    coordinates_MBK = torch.tensor([-5.0, -0.95, -0.05, 0.05, 0.95, 5.0])[:, None, None]
    counts_BKV = vote(coordinates_MBK, 1.0)
    assert counts_BKV[0, 0].tolist() == [2, 0, 0, 0, 1, 1, 0, 0, 0, 2]


def test_a_winner_needs_half_of_the_teachers():
    counts_BKV = np.zeros((1, 2, BINS), dtype=np.int64)
    counts_BKV[0, 0, [3, 4]] = 5, 5
    counts_BKV[0, 1, [3, 4, 5]] = 4, 3, 3
    winners_BK, enough_BK = confident_winners(counts_BKV, 10, 1.0, 1.0, NoNoise())
    assert winners_BK.tolist() == [[3, 3]]
    assert enough_BK.tolist() == [[True, False]]


def test_noise_is_added_to_every_count_and_to_the_largest():
    counts_BKV = np.zeros((50, 40, BINS), dtype=np.int64)
    counts_BKV[..., 7] = 10
    noise = SeededNoise(np.random.default_rng(0))
    winners_BK, enough_BK = confident_winners(counts_BKV, 20, 100.0, 600.0, noise)
    shares = np.bincount(winners_BK.ravel(), minlength=BINS) / winners_BK.size
    assert (abs(shares - 1 / BINS) < 0.05).all()
    assert 0.45 < enough_BK.mean() < 0.55


def test_same_seed_same_samples_and_another_seed_others():
    labels_B = torch.arange(4)
    torch.manual_seed(3)
    first = train(TINY)
    after_training = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after_training, torch.rand(1))
    assert torch.equal(first.sampler(labels_B, 1), train(TINY).sampler(labels_B, 1))
    other = train(TINY, seed=1)
    assert not torch.equal(first.sampler(labels_B, 1), other.sampler(labels_B, 1))


def test_the_published_epsilon_depends_on_the_votes_and_is_finite():
    first, other = train(TINY), train(TINY, seed=1)
    assert 0 < first.published_epsilon < math.inf
    assert first.published_epsilon != other.published_epsilon
    assert epsilon_of(first.releases, DELTA) == epsilon_of(other.releases, DELTA)


def test_progress_reaches_one_and_never_falls():
    shares: list[float] = []
    train(TINY, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_linear_teachers_stay_within_the_same_epsilon_and_learn_the_classes():
    images_NCHW = torch.zeros(80, 1, 28, 28)
    labels_N = torch.arange(80) % 2
    images_NCHW[labels_N == 0, :, :14] = 1.0  # ink above, or below
    images_NCHW[labels_N == 1, :, 14:] = 1.0
    settings = replace(
        TINY, teachers=40, teacher_width=0, steps=150, batch_size=8, projection_dim=20,
        generator="shallow", generator_width=32, generator_learning_rate=1e-2, latent_dim=2,
    )  # fmt: skip
    baseline = train_gpate(images_NCHW, labels_N, 2, settings, 1e6, DELTA, 0)
    assert epsilon_of(baseline.releases, DELTA) <= 1e6
    samples_BCHW = baseline.sampler(torch.tensor([0, 0, 1, 1]), 0)
    above_B = samples_BCHW[:, 0, :14].mean((1, 2)) - samples_BCHW[:, 0, 14:].mean((1, 2))
    assert above_B[:2].min() > 0.1
    assert above_B[2:].max() < -0.1


def test_fewer_images_than_teachers_are_refused():
    with pytest.raises(ValueError, match=r"teachers=41 must be at most the 40 training images"):
        train(replace(TINY, teachers=41))
