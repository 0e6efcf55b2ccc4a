import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from fed_gswgan.critics.closed_form import (
    is_piecewise_linear,
    set_piecewise_linear_gradient,
)
from fed_gswgan.critics.wgan_gp import (
    CriticSettings,
    critic_optimizer,
    critic_step,
    set_gradient_by_autograd,
    train_critic,
)
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import ClientDataset
from fed_gswgan.models.critics import ConvCritic, MLPCritic


def set_closed_form(critic, *inputs_and_config):
    *inputs, config = inputs_and_config
    penalties = config.gradient_penalty, config.drift_penalty
    set_piecewise_linear_gradient(critic, *inputs, *penalties)


CONFIG = CriticSettings(gradient_penalty=10.0, drift_penalty=1e-3)
WIDTHS = {MLPCritic: 32, ConvCritic: 6}

of_both_critics = pytest.mark.parametrize("kind", WIDTHS)


def critic_of(kind, seed, classes=5, width=None):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(IMAGE_SHAPE, classes, width or WIDTHS[kind])


def batch(seed, size=16, classes=5):
    draws = torch.Generator().manual_seed(seed)
    images = (torch.rand(size, 1, 28, 28, generator=draws) > 0.8).float()
    samples = torch.rand(size, 1, 28, 28, generator=draws)
    labels = torch.randint(classes, (size,), generator=draws)
    return images, samples, labels, torch.rand(size, generator=draws)


def gradients(set_gradient, critic, inputs, config):
    critic.zero_grad(set_to_none=True)
    set_gradient(critic, *inputs, config)
    return {name: parameter.grad.clone() for name, parameter in critic.named_parameters()}


def by_autograd_and_written_out(critic, inputs, config):
    ways = set_gradient_by_autograd, set_closed_form
    return [gradients(way, critic, inputs, config) for way in ways]


@of_both_critics
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        CriticSettings(gradient_penalty=0.0, drift_penalty=0.0),
        CriticSettings(gradient_penalty=3.0, drift_penalty=2.0),
    ],
)
def test_it_is_the_gradient_of_autograd_in_double_precision(kind, seed, config):
    critic = critic_of(kind, seed).double()
    images, samples, labels, mix = batch(seed)
    inputs = images.double(), samples.double(), labels, mix.double()
    expected, written_out = by_autograd_and_written_out(critic, inputs, config)
    for name, found in written_out.items():
        torch.testing.assert_close(found, expected[name], rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize(("kind", "width"), [(MLPCritic, 256), (ConvCritic, 16), (ConvCritic, 64)])
def test_in_single_precision_it_is_as_near_as_rounding_allows(kind, width):
    critic = critic_of(kind, 0, classes=62, width=width)
    inputs = batch(1, size=32, classes=62)
    expected, written_out = by_autograd_and_written_out(critic, inputs, CONFIG)
    for name, found in written_out.items():
        scale = expected[name].abs().max()
        assert (found - expected[name]).abs().max() < 1e-4 * scale, name


def trained(kind, steps, seed=0, **settings):
    """A critic after so many steps on a random shard, and the samples it was trained against."""
    shard = ClientDataset(("w",), batch(3, 40)[0].numpy(), np.arange(40) % 5)
    critic, config = critic_of(kind, seed), CriticSettings(critic_steps=steps, **settings)
    optimizer = critic_optimizer(critic, config)
    _, samples, labels, _ = batch(4)
    randomness = np.random.default_rng(0)
    train_critic(critic, optimizer, shard, samples[None], labels[None], config, randomness)
    return critic, (samples, labels)


@of_both_critics
def test_every_gradient_of_a_training_is_that_of_autograd(kind):
    critic = critic_of(kind, 0)
    optimizer = critic_optimizer(critic, CONFIG)
    for step in range(30):
        inputs = batch(step)
        expected, written_out = by_autograd_and_written_out(critic, inputs, CONFIG)
        scale = max(gradient.abs().max() for gradient in expected.values())
        for name, found in written_out.items():
            assert (found - expected[name]).abs().max() < 1e-4 * scale, (step, name)
        critic_step(critic, optimizer, *inputs, CONFIG)


@of_both_critics
@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e-8])
def test_a_critic_that_is_nearly_flat_gets_no_larger_gradient_than_by_autograd(kind, scale):
    critic = critic_of(kind, 0)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter *= scale
    expected, written_out = by_autograd_and_written_out(critic, batch(0), CONFIG)
    for name, found in written_out.items():
        torch.testing.assert_close(found, expected[name], rtol=1e-3, atol=1e-13, msg=name)


@of_both_critics
def test_weights_and_inputs_are_left_as_they_were(kind):
    critic, inputs = critic_of(kind, 0), batch(0)
    before = [value.clone() for value in (*critic.parameters(), *inputs)]
    set_closed_form(critic, *inputs, CONFIG)
    after = [*critic.parameters(), *inputs]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


class Squared(ConvCritic):
    """Scores as no convolutional critic of ours does."""

    def forward(self, images_BCHW, labels_B):
        return super().forward(images_BCHW, labels_B) ** 2


def with_spectral_norm(kind):
    critic = critic_of(kind, 0)
    parametrizations.spectral_norm(critic.hidden_layers()[1])
    return critic.eval()  # the norm's power iteration would move it between two forwards


@pytest.mark.parametrize(
    "make_critic",
    [
        lambda: critic_of(ConvCritic, 0),
        lambda: critic_of(Squared, 0, width=4),
        lambda: with_spectral_norm(ConvCritic),
        lambda: with_spectral_norm(MLPCritic),
    ],
    ids=["plain", "another score", "spectral norm", "spectral norm, dense"],
)
def test_a_step_follows_the_critic_s_own_gradient_whether_it_is_known_or_not(make_critic):
    critic, inputs = make_critic(), batch(2)
    expected = gradients(set_gradient_by_autograd, critic, inputs, CONFIG)
    critic_step(critic, torch.optim.SGD(critic.parameters(), lr=1e-3), *inputs, CONFIG)
    for name, parameter in critic.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-4, msg=name)


@of_both_critics
def test_only_a_critic_whose_score_and_weights_are_plain_is_known(kind):
    assert is_piecewise_linear(critic_of(kind, 0))
    assert not is_piecewise_linear(with_spectral_norm(kind))
    assert not is_piecewise_linear(critic_of(Squared, 0, width=4))
    assert not is_piecewise_linear(nn.Linear(784, 1))
