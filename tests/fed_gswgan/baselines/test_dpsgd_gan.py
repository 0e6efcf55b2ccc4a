import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from fed_gswgan.baselines.dpsgd_gan import (
    FULL_PAPER_ERA,
    FULL_REVISITED,
    SMALL_PAPER_ERA,
    SMALL_REVISITED,
    _Discriminator,
    train_dpsgd_gan,
)
from fed_gswgan.privacy.declared_releases import epsilon_of
from fed_gswgan.seeding import SeedStream

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


def data(count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.rand((count, 1, 28, 28), generator=generator), torch.arange(count) % 4


def train(settings, seed=0, progress=lambda share: None):
    return train_dpsgd_gan(*data(), 4, settings, 10.0, DELTA, seed, progress)


def discriminator_of(settings, images_NCHW, noise_multiplier) -> _Discriminator:
    _, labels_N = data()
    return _Discriminator(images_NCHW, labels_N, 4, settings, noise_multiplier, SeedStream(0))


def weights_after_a_step(settings, images_NCHW, noise_multiplier=1e-9) -> torch.Tensor:
    discriminator = discriminator_of(settings, images_NCHW, noise_multiplier)
    discriminator.step(torch.full((8, 1, 28, 28), 0.5), torch.arange(8) % 4)
    return torch.cat([p.detach().flatten() for p in discriminator.network.parameters()])


@pytest.mark.parametrize("networks", [("mlp", "slim"), ("shallow", "shallow"), ("conv", "dcgan")])
def test_the_declared_releases_stay_within_the_epsilon_asked_for(networks):
    discriminator, generator = networks
    baseline = train(
        replace(TINY, discriminator=discriminator, generator=generator, generator_width=4)
    )
    assert 9.9 < epsilon_of(baseline.releases, DELTA) <= 10
    (release,) = baseline.releases
    assert release.rounds == 6
    assert release.sampling_probability == 8 / 40


@pytest.mark.parametrize("discriminator", ["shallow", "mlp", "conv"])
def test_no_image_moves_a_step_by_more_than_the_bound(discriminator):
    # With SGD at rate 1 the weights move by the noisy sum over batch_size; the noise is the same.
    settings = replace(
        TINY,
        discriminator=discriminator,
        discriminator_optimizer="sgd",
        discriminator_learning_rate=1.0,
        batch_size=39,
        clipping_bound=0.01,
    )
    images_NCHW, _ = data()
    before_P = weights_after_a_step(settings, images_NCHW)
    changed_NCHW = images_NCHW.clone()
    changed_NCHW[3] = 1 - changed_NCHW[3]
    moved = (weights_after_a_step(settings, changed_NCHW) - before_P).norm().item() * 39
    assert 0 < moved <= 2 * 0.01 + 1e-4


@pytest.mark.parametrize("discriminator", ["shallow", "mlp", "conv"])
def test_a_step_is_that_of_a_loop_that_clips_one_gradient_at_a_time(discriminator):
    settings = replace(
        TINY,
        discriminator=discriminator,
        discriminator_optimizer="sgd",
        discriminator_learning_rate=1.0,
        batch_size=39,
        clipping_bound=0.2,
    )
    images_NCHW, labels_N = data()
    discriminator_ = discriminator_of(settings, images_NCHW, 1e-9)
    network = copy.deepcopy(discriminator_.network)
    chosen = discriminator_of(settings, images_NCHW, 1e-9).poisson_batch()
    rows = [(images_NCHW[i], labels_N[i], -1) for i in chosen]
    rows += [(torch.full((1, 28, 28), 0.5), torch.tensor(i % 4), 1) for i in range(8)]
    expected_P = torch.cat([p.detach().flatten() for p in network.parameters()])
    shrunk = 0
    for image_CHW, label, sign in rows:
        loss = torch.nn.functional.softplus(sign * network(image_CHW[None], label[None])).sum()
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        gradient_P = torch.cat([gradient.flatten() for gradient in gradients])
        shrunk += int(gradient_P.norm() > 0.2)
        expected_P -= gradient_P * min(1.0, 0.2 / gradient_P.norm().item()) / 39
    assert shrunk > 10
    found_P = weights_after_a_step(settings, images_NCHW)
    assert torch.allclose(found_P, expected_P, atol=1e-5)


def test_the_noise_has_the_deviation_that_is_accounted_for():
    settings = replace(
        TINY, discriminator_optimizer="sgd", discriminator_learning_rate=1.0, clipping_bound=0.5
    )
    images_NCHW, _ = data()
    quiet_P = weights_after_a_step(settings, images_NCHW, 1e-9)
    noisy_P = weights_after_a_step(settings, images_NCHW, 3.0)
    noise_P = (noisy_P - quiet_P) * settings.batch_size
    assert noise_P.std().item() == pytest.approx(3.0 * 0.5, rel=0.05)


def test_batches_are_poisson_samples():
    images_NCHW, _ = data()
    discriminator = discriminator_of(TINY, images_NCHW, 1.0)
    counts = np.array([len(discriminator.poisson_batch()) for _ in range(2000)])
    assert counts.mean() == pytest.approx(8, abs=0.3)
    assert counts.var() == pytest.approx(40 * 0.2 * 0.8, rel=0.15)


def test_an_empty_batch_is_a_step_like_any_other():
    images_NCHW, _ = data()
    discriminator = discriminator_of(replace(TINY, batch_size=1), images_NCHW, 1.0)
    discriminator._draws = np.random.default_rng(4)  # whose first 40 draws select nobody
    assert (np.random.default_rng(4).random(40) >= 1 / 40).all()
    before = [p.detach().clone() for p in discriminator.network.parameters()]
    discriminator.step(torch.zeros(1, 1, 28, 28), torch.zeros(1, dtype=torch.int64))
    after = list(discriminator.network.parameters())
    assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))


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


def test_the_generator_steps_once_in_so_many_steps_of_the_discriminator():
    labels_B = torch.arange(4)
    never = train(replace(TINY, discriminator_steps=2)).sampler(labels_B, 1)
    once = train(replace(TINY, discriminator_steps=3)).sampler(labels_B, 1)
    also_once = train(replace(TINY, discriminator_steps=5)).sampler(labels_B, 1)
    assert not torch.equal(never, once)
    assert also_once.shape == once.shape


def test_taking_noise_times_bound_for_the_multiplier_understates_epsilon():
    paper_era = replace(TINY, noise_multiplier_factor=1.1)
    assert train(paper_era).published_epsilon < train(TINY).published_epsilon


def test_renyi_accounting_is_never_below_the_true_epsilon():
    baseline = train(TINY)
    assert baseline.published_epsilon >= epsilon_of(baseline.releases, DELTA)


def test_paper_era_presets_read_the_bound_into_the_noise_multiplier():
    for preset in (SMALL_PAPER_ERA, FULL_PAPER_ERA):
        assert preset.noise_multiplier_factor == preset.clipping_bound
    for preset in (SMALL_REVISITED, FULL_REVISITED):
        assert preset.noise_multiplier_factor == 1


def test_progress_reaches_one_and_never_falls():
    shares: list[float] = []
    train(TINY, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match=r"batch-size=41 must be at most the 40"):
        train(replace(TINY, batch_size=41))
