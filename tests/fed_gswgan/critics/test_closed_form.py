import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.utils import parametrizations

from fed_gswgan.critics.closed_form import (
    ConvolutionLayer,
    DenseLayer,
    PatchLayer,
    is_piecewise_linear,
    patch_layer,
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

CONVOLUTIONS = [
    lambda: nn.Conv2d(1, 4, 5, stride=2, padding=2),
    lambda: nn.Conv2d(3, 5, 5, stride=2, padding=2),
    lambda: nn.Conv2d(2, 3, 3, stride=1, padding=1),
    lambda: nn.Conv2d(2, 3, 4, stride=3, padding=0),
]


def module_of(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double().requires_grad_(False)


@pytest.mark.parametrize("make", CONVOLUTIONS)
@pytest.mark.parametrize("size", [7, 14])
def test_it_is_the_convolution(make, size):
    module = module_of(make)
    draws = torch.Generator().manual_seed(1)
    inputs = torch.rand(6, module.in_channels, size, size, generator=draws, dtype=torch.float64)
    expected, found = ConvolutionLayer(module, torch.float64), PatchLayer(module, torch.float64)

    outputs = expected.outputs(inputs)
    slopes = torch.rand(outputs.shape, generator=draws, dtype=torch.float64)

    torch.testing.assert_close(found.outputs(inputs), outputs)
    without_bias = expected.outputs(inputs, bias=False)
    torch.testing.assert_close(found.outputs(inputs, bias=False), without_bias)
    torch.testing.assert_close(
        found.input_slopes(slopes, inputs), expected.input_slopes(slopes, inputs)
    )
    for one, other in zip(
        found.gradient(slopes, inputs, 4), expected.gradient(slopes, inputs, 4), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_layers_with_weights_of_their_own_are_one_batched_operation():
    """What vmap cannot batch, it warns of and does one after the other."""
    module = module_of(CONVOLUTIONS[1])
    draws = torch.Generator().manual_seed(2)
    weights = torch.rand(3, *module.weight.shape, generator=draws, dtype=torch.float64)
    inputs = torch.rand(3, 6, 3, 14, 14, generator=draws, dtype=torch.float64)

    class Outputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = module

        def forward(self, inputs):
            layer = PatchLayer(self.layer, torch.float64)
            outputs = layer.outputs(inputs)
            return layer.input_slopes(outputs, inputs), layer.weight_slopes(outputs, inputs)

    def of_one(weight, inputs):
        return functional_call(Outputs(), {"layer.weight": weight}, (inputs,))

    together = vmap(of_one)(weights, inputs)
    for client in range(3):
        for found, expected in zip(together, of_one(weights[client], inputs[client]), strict=True):
            torch.testing.assert_close(found[client], expected)


def test_a_dense_layer_has_no_patches():
    assert type(patch_layer(nn.Linear(3, 2), torch.float32)) is DenseLayer
    assert type(patch_layer(nn.Conv2d(1, 2, 3), torch.float32)) is PatchLayer


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
