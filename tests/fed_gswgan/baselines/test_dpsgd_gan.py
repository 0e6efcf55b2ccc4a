import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from fed_gswgan.accounting.trust import epsilon_of
from fed_gswgan.baselines.dp_sgd import poisson_batch
from fed_gswgan.baselines.dpsgd_gan import (
    FULL_PAPER_ERA,
    SMALL_PAPER_ERA,
    SMALL_REVISITED,
    PrivateDiscriminator,
    train,
)
from fed_gswgan.seeding import SeedStream

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")

DELTA = 1e-5
TINY = replace(
    SMALL_REVISITED, discriminator_width=8, generator_width=8, discriminator_steps=6, batch_size=8,
    generator_batch_size=4,
)  # fmt: skip


def trained(data, **changes):
    return train(*data(), 4, replace(TINY, **changes), 10.0, DELTA, 0)


def test_paper_era_presets_read_the_bound_into_the_noise_multiplier(data):
    for preset in (SMALL_PAPER_ERA, FULL_PAPER_ERA):
        assert preset.noise_multiplier_factor == preset.clipping_bound
    plain, paper_era = trained(data), trained(data, noise_multiplier_factor=1.1)
    assert paper_era.published_epsilon < plain.published_epsilon
    assert plain.published_epsilon >= epsilon_of(plain.releases, DELTA)


@pytest.mark.parametrize(("discriminator", "generator"), [("mlp", "slim"), ("conv", "dcgan")])
def test_all_networks_train(data, discriminator, generator):
    baseline = trained(data, discriminator=discriminator, generator=generator, generator_width=4)
    assert baseline.releases[0].sampling_probability == 8 / 40
    assert baseline.sampler(torch.arange(4), 1).shape == (4, 1, 28, 28)


def test_the_generator_steps_once_in_three_steps_of_the_discriminator(data):
    never, once = (trained(data, discriminator_steps=n).sampler(torch.arange(4), 1) for n in (2, 3))
    assert not torch.equal(never, once)


def discriminator_of(settings, images_and_labels, noise_multiplier) -> PrivateDiscriminator:
    return PrivateDiscriminator(*images_and_labels, 4, settings, noise_multiplier, SeedStream(0))


def weights_after_a_step(settings, images_and_labels, noise_multiplier=1e-9) -> torch.Tensor:
    discriminator = discriminator_of(settings, images_and_labels, noise_multiplier)
    discriminator.step(torch.full((8, 1, 28, 28), 0.5), torch.arange(8) % 4)
    return torch.cat([p.detach().flatten() for p in discriminator.network.parameters()])


@pytest.mark.parametrize("discriminator", ["shallow", "mlp", "conv"])
def test_no_image_moves_a_step_by_more_than_the_bound(data, discriminator):
    # With SGD at rate 1 the weights move by the noisy sum over batch_size; the noise is the same.
    settings = replace(
        TINY,
        discriminator=discriminator,
        discriminator_optimizer="sgd",
        discriminator_learning_rate=1.0,
        batch_size=39,
        clipping_bound=0.01,
    )
    images_NCHW, labels_N = data()
    before_P = weights_after_a_step(settings, (images_NCHW, labels_N))
    changed_NCHW = images_NCHW.clone()
    changed_NCHW[3] = 1 - changed_NCHW[3]
    moved = (weights_after_a_step(settings, (changed_NCHW, labels_N)) - before_P).norm().item() * 39
    assert 0 < moved <= 2 * 0.01 + 1e-4


@pytest.mark.parametrize("discriminator", ["shallow", "mlp", "conv"])
def test_a_step_is_that_of_a_loop_that_clips_one_gradient_at_a_time(data, discriminator):
    settings = replace(
        TINY,
        discriminator=discriminator,
        discriminator_optimizer="sgd",
        discriminator_learning_rate=1.0,
        batch_size=39,
        clipping_bound=0.2,
    )
    images_NCHW, labels_N = data()
    discriminator_ = discriminator_of(settings, data(), 1e-9)
    network = copy.deepcopy(discriminator_.network)
    chosen = poisson_batch(40, 39 / 40, SeedStream(0).generator("poisson batches"))
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
    found_P = weights_after_a_step(settings, data())
    assert torch.allclose(found_P, expected_P, atol=1e-5)


def test_the_noise_has_the_deviation_that_is_accounted_for(data):
    settings = replace(
        TINY, discriminator_optimizer="sgd", discriminator_learning_rate=1.0, clipping_bound=0.5
    )
    quiet_P = weights_after_a_step(settings, data(), 1e-9)
    noisy_P = weights_after_a_step(settings, data(), 3.0)
    noise_P = (noisy_P - quiet_P) * settings.batch_size
    assert noise_P.std().item() == pytest.approx(3.0 * 0.5, rel=0.05)


def test_an_empty_batch_is_a_step_like_any_other(data):
    discriminator = discriminator_of(replace(TINY, batch_size=1), data(), 1.0)
    discriminator._draws = np.random.default_rng(4)  # whose first 40 draws select nobody
    assert (np.random.default_rng(4).random(40) >= 1 / 40).all()
    before = [p.detach().clone() for p in discriminator.network.parameters()]
    discriminator.step(torch.zeros(1, 1, 28, 28), torch.zeros(1, dtype=torch.int64))
    after = list(discriminator.network.parameters())
    assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
