from functools import partial

import numpy as np
import pytest
import torch
from dp_accounting import dp_event
from dp_accounting.rdp import rdp_privacy_accountant
from torch.nn import functional

from fed_gswgan.accounting.trust import SamplingMethod
from fed_gswgan.baselines.dp_merf_autoencoder import Autoencoder, reconstruction_losses
from fed_gswgan.baselines.dp_sgd import (
    ORDERS,
    ClippedSteps,
    gaussian_rdp,
    noisy_sums,
    poisson_batch,
    renyi_epsilon,
)
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.privacy.mechanism import NeighboringRelation

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")

BOUND, DELTA = 0.7, 1e-5


def images(count):
    return torch.rand((count, 1, 28, 28), generator=torch.Generator().manual_seed(5))


def autoencoder_and_steps(noise_multiplier=0.0):
    torch.manual_seed(0)
    network = Autoencoder(IMAGE_SHAPE, 6, 3)
    steps = ClippedSteps(
        network,
        torch.optim.SGD(network.parameters(), lr=1.0),
        clipping_bound=BOUND,
        noise_multiplier=noise_multiplier,
        batch_size=5,
        noise_seed=0,
    )
    return network, steps


def clipped_sum(images_BCHW, network_and_steps=None):
    network, steps = network_and_steps or autoencoder_and_steps()
    steps.leave_clipped_gradients(partial(reconstruction_losses, images_BCHW=images_BCHW))
    return torch.cat([weight.grad.flatten() for weight in network.parameters()])


def gradient_by_hand(image_1CHW):
    torch.manual_seed(0)
    network = Autoencoder(IMAGE_SHAPE, 6, 3)
    functional.binary_cross_entropy_with_logits(
        network(image_1CHW), image_1CHW.flatten(1), reduction="sum"
    ).backward()
    return torch.cat([weight.grad.flatten() for weight in network.parameters()])


def test_the_sum_is_that_of_each_images_own_clipped_gradient():
    gradients = [gradient_by_hand(image[None]) for image in images(7)]
    assert min(gradient.norm() for gradient in gradients) > BOUND
    expected = sum(gradient * BOUND / gradient.norm() for gradient in gradients)
    assert clipped_sum(images(7)) == pytest.approx(expected, abs=1e-5)


def test_a_zeroed_out_image_moves_the_sum_by_the_bound_at_most():
    network_and_steps = autoencoder_and_steps()
    whole = clipped_sum(images(9), network_and_steps)
    for index in range(9):
        without = torch.cat([images(9)[:index], images(9)[index + 1 :]])
        moved = (clipped_sum(without, network_and_steps) - whole).norm().item()
        assert 0.9 * BOUND < moved <= BOUND * (1 + 1e-4)


def test_an_empty_batch_has_the_gradient_zero():
    assert clipped_sum(images(0)).abs().max() == 0


def weights_after_steps(noise_multiplier, count):
    network, steps = autoencoder_and_steps(noise_multiplier)
    for _ in range(count):
        steps.take(partial(reconstruction_losses, images_BCHW=images(7)))
    return torch.nn.utils.parameters_to_vector(network.parameters()).detach()


def test_a_step_follows_its_own_sum_over_the_expected_batch_size():
    network, steps = autoencoder_and_steps()
    for _ in range(3):
        before = torch.nn.utils.parameters_to_vector(network.parameters()).detach().clone()
        expected = before - clipped_sum(images(7), (network, steps)) / 5
        steps.take(partial(reconstruction_losses, images_BCHW=images(7)))
        found = torch.nn.utils.parameters_to_vector(network.parameters())
        assert torch.allclose(found, expected, atol=1e-6)


def test_the_noise_is_the_multiplier_times_the_bound():
    noise = (weights_after_steps(50.0, 1) - weights_after_steps(0.0, 1)) * 5
    assert noise.std().item() == pytest.approx(50 * BOUND, rel=0.03)


def test_between_steps_the_network_is_used_like_any_other():
    network, steps = autoencoder_and_steps()
    steps.take(partial(reconstruction_losses, images_BCHW=images(7)))
    before = clipped_sum(images(7), (network, steps))
    network(images(2)).sum().backward()
    assert torch.equal(clipped_sum(images(7), (network, steps)), before)


def test_each_record_is_in_a_batch_by_its_own_coin():
    randomness = np.random.default_rng(0)
    batches = [poisson_batch(30, 0.2, randomness) for _ in range(3000)]
    rates = torch.bincount(torch.cat(batches), minlength=30) / 3000
    sizes = torch.tensor([float(len(batch)) for batch in batches])
    assert rates == pytest.approx(torch.full((30,), 0.2), abs=0.03)
    assert sizes.mean().item() == pytest.approx(6, abs=0.2)
    assert sizes.var().item() == pytest.approx(30 * 0.2 * 0.8, rel=0.1)


def test_a_step_costs_the_bound_over_the_noise_at_the_share_of_a_batch():
    release = noisy_sums("sums", num_images=40, batch_size=8, steps=6, noise_multiplier=2.0)
    assert (release.what, release.rounds, release.mu) == ("sums", 6, 0.5)
    assert release.relation is NeighboringRelation.ZERO_OUT
    assert release.sampling is SamplingMethod.POISSON
    assert release.sampling_probability == 8 / 40


def test_one_gaussian_has_its_closed_form():
    assert gaussian_rdp(2.0) == pytest.approx(np.array(ORDERS) / (2 * 2.0**2))


def test_steps_add_up_as_dp_accounting_adds_them():
    accountant = rdp_privacy_accountant.RdpAccountant(ORDERS)
    sampled = dp_event.PoissonSampledDpEvent(0.2, dp_event.GaussianDpEvent(1.5))
    accountant.compose(sampled, 30)
    accountant.compose(dp_event.GaussianDpEvent(4.0))
    rdp_R = gaussian_rdp(1.5, 0.2, 30) + gaussian_rdp(4.0)
    assert renyi_epsilon(rdp_R, DELTA) == pytest.approx(accountant.get_epsilon(DELTA), rel=0.02)
