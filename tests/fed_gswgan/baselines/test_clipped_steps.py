import warnings
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch.nn import functional

from fed_gswgan.baselines.clipped_steps import ClippedSteps, hook_warnings_ignored
from fed_gswgan.baselines.private_autoencoder import Autoencoder, reconstruction_losses
from fed_gswgan.data.characters import IMAGE_SHAPE

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")

BOUND = 0.7


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


def test_a_step_warns_of_hooks_unless_told_not_to():
    told = []
    for context in (nullcontext(), hook_warnings_ignored()):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with context:
                weights_after_steps(1.0, 2)
        told.append(any("backward hook" in str(one.message) for one in caught))
    assert told == [True, False]
