import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from fed_gswgan.training.linear_layer import ConvolutionLayer, DenseLayer
from fed_gswgan.training.patch_layer import PatchLayer, patch_layer

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
