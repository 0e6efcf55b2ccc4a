import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from fed_gswgan.baselines.dpsgd_gan_settings import SMALL_REVISITED
from fed_gswgan.baselines.private_discriminator import PrivateDiscriminator
from fed_gswgan.seeding import SeedStream

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")

TINY = replace(SMALL_REVISITED, discriminator_width=8, batch_size=8)


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
    chosen = discriminator_of(settings, data(), 1e-9).poisson_batch()
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


def test_batches_are_poisson_samples(data):
    discriminator = discriminator_of(TINY, data(), 1.0)
    counts = np.array([len(discriminator.poisson_batch()) for _ in range(2000)])
    assert counts.mean() == pytest.approx(8, abs=0.3)
    assert counts.var() == pytest.approx(40 * 0.2 * 0.8, rel=0.15)


def test_an_empty_batch_is_a_step_like_any_other(data):
    discriminator = discriminator_of(replace(TINY, batch_size=1), data(), 1.0)
    discriminator._draws = np.random.default_rng(4)  # whose first 40 draws select nobody
    assert (np.random.default_rng(4).random(40) >= 1 / 40).all()
    before = [p.detach().clone() for p in discriminator.network.parameters()]
    discriminator.step(torch.zeros(1, 1, 28, 28), torch.zeros(1, dtype=torch.int64))
    after = list(discriminator.network.parameters())
    assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
