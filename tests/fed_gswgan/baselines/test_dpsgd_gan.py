from dataclasses import replace

import pytest
import torch

from fed_gswgan.accounting.trust import epsilon_of
from fed_gswgan.baselines.dpsgd_gan import train_dpsgd_gan
from fed_gswgan.baselines.dpsgd_gan_settings import SMALL_REVISITED

DELTA = 1e-5
TINY = replace(
    SMALL_REVISITED,
    discriminator="mlp",
    discriminator_width=8,
    generator="shallow",
    generator_width=8,
    discriminator_steps=6,
    discriminator_steps_per_generator_step=3,
    batch_size=8,
    generator_batch_size=4,
)


@pytest.fixture
def train(data):
    def train(settings, seed=0, progress=lambda share: None):
        return train_dpsgd_gan(*data(), 4, settings, 10.0, DELTA, seed, progress)

    return train


@pytest.mark.parametrize("networks", [("mlp", "slim"), ("shallow", "shallow"), ("conv", "dcgan")])
def test_the_declared_releases_stay_within_the_epsilon_asked_for(train, networks):
    discriminator, generator = networks
    baseline = train(
        replace(TINY, discriminator=discriminator, generator=generator, generator_width=4)
    )
    assert 9.9 < epsilon_of(baseline.releases, DELTA) <= 10
    (release,) = baseline.releases
    assert release.rounds == 6
    assert release.sampling_probability == 8 / 40


def test_same_seed_same_samples_and_another_seed_others(train):
    labels_B = torch.arange(4)
    torch.manual_seed(3)
    first = train(TINY)
    after_training = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after_training, torch.rand(1))
    assert torch.equal(first.sampler(labels_B, 1), train(TINY).sampler(labels_B, 1))
    other = train(TINY, seed=1)
    assert not torch.equal(first.sampler(labels_B, 1), other.sampler(labels_B, 1))


def test_the_generator_steps_once_in_so_many_steps_of_the_discriminator(train):
    labels_B = torch.arange(4)
    never = train(replace(TINY, discriminator_steps=2)).sampler(labels_B, 1)
    once = train(replace(TINY, discriminator_steps=3)).sampler(labels_B, 1)
    also_once = train(replace(TINY, discriminator_steps=5)).sampler(labels_B, 1)
    assert not torch.equal(never, once)
    assert also_once.shape == once.shape


def test_taking_noise_times_bound_for_the_multiplier_understates_epsilon(train):
    paper_era = replace(TINY, noise_multiplier_factor=1.1)
    assert train(paper_era).published_epsilon < train(TINY).published_epsilon


def test_renyi_accounting_is_never_below_the_true_epsilon(train):
    baseline = train(TINY)
    assert baseline.published_epsilon >= epsilon_of(baseline.releases, DELTA)


def test_progress_reaches_one_and_never_falls(train):
    shares: list[float] = []
    train(TINY, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_batch_larger_than_the_data_is_refused(train):
    with pytest.raises(ValueError, match=r"batch-size=41 must be at most the 40"):
        train(replace(TINY, batch_size=41))
