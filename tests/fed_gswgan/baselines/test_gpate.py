import math
from dataclasses import replace

import pytest
import torch

from fed_gswgan.accounting.trust import epsilon_of
from fed_gswgan.baselines.gpate import train_gpate
from fed_gswgan.baselines.gpate_settings import GPATESettings
from fed_gswgan.privacy.gaussian import gaussian_mu

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


@pytest.fixture
def train(data):
    def train(settings=TINY, seed=0, progress=lambda share: None):
        return train_gpate(*data(), 4, settings, 10.0, DELTA, seed, progress)

    return train


def test_all_queries_together_stay_within_the_epsilon_asked_for(train):
    baseline = train()
    assert 9.9 < epsilon_of(baseline.releases, DELTA) <= 10
    assert {release.rounds for release in baseline.releases} == {3 * 2 * 4}
    mu_squared = sum(release.rounds * release.mu**2 for release in baseline.releases)
    assert math.sqrt(mu_squared) == pytest.approx(gaussian_mu(10, DELTA), rel=2e-3)


def test_same_seed_same_samples_and_another_seed_others(train):
    labels_B = torch.arange(4)
    torch.manual_seed(3)
    first = train()
    after_training = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after_training, torch.rand(1))
    assert torch.equal(first.sampler(labels_B, 1), train().sampler(labels_B, 1))
    other = train(seed=1)
    assert not torch.equal(first.sampler(labels_B, 1), other.sampler(labels_B, 1))


def test_the_published_epsilon_depends_on_the_votes_and_is_finite(train):
    first, other = train(), train(seed=1)
    assert 0 < first.published_epsilon < math.inf
    assert first.published_epsilon != other.published_epsilon
    assert epsilon_of(first.releases, DELTA) == epsilon_of(other.releases, DELTA)


def test_progress_reaches_one_and_never_falls(train):
    shares: list[float] = []
    train(progress=shares.append)
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


def test_fewer_images_than_teachers_are_refused(train):
    with pytest.raises(ValueError, match=r"teachers=41 must be at most the 40 training images"):
        train(replace(TINY, teachers=41))
