"""Closed-form gradient of the WGAN-GP loss for critics that are piecewise linear in the image.

It replaces the double backward pass of autograd, and equals it up to float32 rounding.

Shapes: B batch, C channels, H and W image.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight

from fed_gswgan.models.critics import NEGATIVE_SLOPE, ConvCritic, MLPCritic


class LinearLayer(ABC):
    """A layer with its weights in the type to compute in.

    Args:
        module: has weight and bias, which keep their type.
        dtype: of inputs, outputs and slopes.

    Raises:
        ValueError: the module has no bias.
    """

    def __init__(self, module: nn.Linear | nn.Conv2d, dtype: torch.dtype) -> None:
        if module.bias is None:
            raise ValueError(f"{module} must have a bias")
        self._dtype = module.weight.dtype
        self.weight, self.bias = module.weight.to(dtype), module.bias.to(dtype)

    @abstractmethod
    def outputs(self, inputs: Tensor, bias: bool = True) -> Tensor:
        """Return the layer's outputs, with or without its bias."""

    @abstractmethod
    def input_slopes(self, slopes: Tensor, inputs: Tensor) -> Tensor:
        """Return the slopes in the inputs, of which only the shape is used, of those in outputs."""

    @abstractmethod
    def weight_slopes(self, slopes: Tensor, inputs: Tensor) -> Tensor:
        """Return the slopes in the weights, summed over the rows, of those in outputs."""

    def gradient(
        self, slopes: Tensor, inputs: Tensor, rows_with_bias: int
    ) -> tuple[Tensor, Tensor]:
        """Return that of weights and bias, in their own type; only the first rows had a bias."""
        all_but_outputs = [0, *range(2, slopes.ndim)]
        of_bias = slopes[:rows_with_bias].sum(all_but_outputs, dtype=self._dtype)
        return self.weight_slopes(slopes, inputs).to(self._dtype), of_bias


class DenseLayer(LinearLayer):
    """Takes the numbers of a row, in whatever shape."""

    def outputs(self, inputs: Tensor, bias: bool = True) -> Tensor:
        """Return ``W x``, and the bias where asked for."""
        return functional.linear(inputs.flatten(1), self.weight, self.bias if bias else None)

    def input_slopes(self, slopes: Tensor, inputs: Tensor) -> Tensor:
        """Return ``W^T y``."""
        return (slopes @ self.weight).view_as(inputs)

    def weight_slopes(self, slopes: Tensor, inputs: Tensor) -> Tensor:
        """Return the sum of ``y x^T``."""
        return slopes.T @ inputs.flatten(1)


class ConvolutionLayer(LinearLayer):
    """Takes channels of pixels."""

    def __init__(self, module: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__(module, dtype)
        self._geometry: tuple[Any, ...] = module.stride, module.padding

    def outputs(self, inputs: Tensor, bias: bool = True) -> Tensor:
        """Return the convolution, and the bias where asked for."""
        return functional.conv2d(inputs, self.weight, self.bias if bias else None, *self._geometry)

    def input_slopes(self, slopes: Tensor, inputs: Tensor) -> Tensor:
        """Return the transposed convolution.

        Of a grey image that is a product of matrices for each sample and then the sum of patches
        that overlap, several times faster than oneDNN's convolution with one channel.
        """
        if inputs.shape[1] == 1:
            patches = self.weight.flatten(1).T @ slopes.flatten(2)
            size, kernel = inputs.shape[2:], self.weight.shape[2:]
            stride, padding = self._geometry
            return functional.fold(patches, size, kernel, padding=padding, stride=stride)
        found: Tensor = conv2d_input(inputs.shape, self.weight, slopes, *self._geometry)  # type: ignore[no-untyped-call]
        return found

    def weight_slopes(self, slopes: Tensor, inputs: Tensor) -> Tensor:
        """Return the correlation of inputs and slopes."""
        found: Tensor = conv2d_weight(inputs, self.weight.shape, slopes, *self._geometry)  # type: ignore[no-untyped-call]
        return found


def linear_layer(module: nn.Linear | nn.Conv2d, dtype: torch.dtype) -> LinearLayer:
    """Return the map that a layer is."""
    if isinstance(module, nn.Linear):
        return DenseLayer(module, dtype)
    return ConvolutionLayer(module, dtype)


class PatchLayer(LinearLayer):
    """Takes channels of pixels; ValueError if its padding is given by name."""

    def __init__(self, module: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__(module, dtype)
        if isinstance(module.padding, str):
            raise ValueError(f"padding={module.padding!r} must be a number of pixels")
        (self._kernel, _), (self._stride, _) = module.kernel_size, module.stride
        self._padding = module.padding[0]

    def outputs(self, inputs: Tensor, bias: bool = True) -> Tensor:
        """Return the convolution, and the bias where asked for."""
        products = self.weight.flatten(1) @ self._patches(inputs)
        if bias:
            products = products + self.bias[:, None]
        height, width = (self._outputs_along(size) for size in inputs.shape[2:])
        return products.view(-1, len(inputs), height, width).transpose(0, 1)

    def input_slopes(self, slopes: Tensor, inputs: Tensor) -> Tensor:
        """Return the transposed convolution, the sum of patches that overlap."""
        patches = self.weight.flatten(1).T @ slopes.transpose(0, 1).flatten(1)
        patches_RFP = patches.reshape(len(patches), len(slopes), -1).transpose(0, 1)
        return functional.fold(
            patches_RFP,
            inputs.shape[2:],
            self._kernel,
            padding=self._padding,
            stride=self._stride,
        )

    def weight_slopes(self, slopes: Tensor, inputs: Tensor) -> Tensor:
        """Return the correlation of inputs and slopes."""
        found = slopes.transpose(0, 1).flatten(1) @ self._patches(inputs).T
        return found.view_as(self.weight)

    def _patches(self, inputs: Tensor) -> Tensor:
        """Return what each output pixel of each row sees, a column each: (C x kernel^2, R x P)."""
        padded = functional.pad(inputs, [self._padding] * 4)
        for axis in (2, 3):
            padded = padded.unfold(axis, self._kernel, self._stride)
        return padded.permute(1, 4, 5, 0, 2, 3).flatten(0, 2).flatten(1)

    def _outputs_along(self, size: int) -> int:
        return (size + 2 * self._padding - self._kernel) // self._stride + 1


def patch_layer(module: nn.Linear | nn.Conv2d, dtype: torch.dtype) -> LinearLayer:
    """Return the map that a layer is, a convolution by patches."""
    if isinstance(module, nn.Conv2d):
        return PatchLayer(module, dtype)
    return linear_layer(module, dtype)


AsLayer = Callable[[nn.Linear | nn.Conv2d, torch.dtype], LinearLayer]


def is_piecewise_linear(critic: nn.Module) -> TypeGuard[MLPCritic | ConvCritic]:
    """Say whether the gradient below is this critic's.

    A subclass may score in another way, and under spectral norm a weight is no parameter but
    computed from one.
    """
    if type(critic) is not MLPCritic and type(critic) is not ConvCritic:
        return False
    layers = (*critic.hidden_layers(), critic.score, critic.class_embedding)
    return all(isinstance(layer.weight, nn.Parameter) for layer in layers)


def set_piecewise_linear_gradient(
    critic: MLPCritic | ConvCritic,
    images_BCHW: Tensor,
    samples_BCHW: Tensor,
    labels_B: Tensor,
    mix_B: Tensor,
    gradient_penalty: float,
    drift_penalty: float,
) -> None:
    """Set ``grad`` of every parameter to the gradient below."""
    inputs = images_BCHW, samples_BCHW, labels_B, mix_B
    gradient = piecewise_linear_gradient(critic, *inputs, gradient_penalty, drift_penalty)
    for name, parameter in critic.named_parameters():
        parameter.grad = gradient[name]


@torch.no_grad()
def piecewise_linear_gradient(
    critic: MLPCritic | ConvCritic,
    images_BCHW: Tensor,
    samples_BCHW: Tensor,
    labels_B: Tensor,
    mix_B: Tensor,
    gradient_penalty: float,
    drift_penalty: float,
    as_layer: AsLayer = linear_layer,
) -> dict[str, Tensor]:
    """Return that of Wasserstein loss, gradient penalty and drift penalty, by parameter name.

    Args:
        critic: stays as it is.
        images_BCHW: real images.
        samples_BCHW: generated samples of the same labels.
        labels_B: labels both are scored under.
        mix_B: where between sample (0) and image (1) the penalty is evaluated.
        gradient_penalty: its weight.
        drift_penalty: its weight.
        as_layer: how each layer is computed.

    Source: WGAN-GP, arXiv 1704.00028, equation 3, differentiated by hand.
    """
    dtype = critic.score.weight.dtype
    layers = [as_layer(module, dtype) for module in critic.hidden_layers()]
    batch = len(labels_B)
    scored, between = slice(0, 2 * batch), slice(2 * batch, 3 * batch)
    mix_B111 = mix_B[:, None, None, None]
    mixed_BCHW = mix_B111 * images_BCHW + (1 - mix_B111) * samples_BCHW

    # The scores of all rows; values[i] is what layer i takes, the last of them the features.
    values = [torch.cat([images_BCHW, samples_BCHW, mixed_BCHW])]
    for layer in layers:
        values.append(functional.leaky_relu_(layer.outputs(values[-1]), NEGATIVE_SLOPE))
    heads_RF = (critic.score.weight + critic.class_embedding(labels_B)).repeat(3, 1)
    scores_R = (values[-1].flatten(1) * heads_RF).sum(1) + critic.score.bias

    # The loss's slopes, from the scores down. The loss does not score what lies between; slopes
    # of 1 there become the input gradient, which the penalty is about.
    slope_R = torch.full_like(scores_R, 1 / batch)
    slope_R[:batch] = (2 * drift_penalty * scores_R[:batch] - 1) / batch
    slope_R[between] = 1
    slopes = [_bent((slope_R[:, None] * heads_RF).view_as(values[-1]), values[-1])]
    for layer, inputs in zip(layers[:0:-1], values[-2:0:-1], strict=True):
        slopes.insert(0, _bent(layer.input_slopes(slopes[0], inputs), inputs))
    gradients_BCHW = layers[0].input_slopes(slopes[0][between], values[0][between])

    # The penalty's slope in the input gradient, and up through the layers once more in its
    # direction. What was computed between has served; this takes its place.
    gradients_BP = gradients_BCHW.flatten(1)
    norms_B1 = gradients_BP.norm(dim=1, keepdim=True)
    outer_B1 = 2 * gradient_penalty / batch * (norms_B1 - 1)
    directions_BP = torch.where(norms_B1 > 0, gradients_BP / norms_B1, 0.0)  # as autograd has it
    values[0][between] = (outer_B1 * directions_BP).view_as(mixed_BCHW)
    for layer, inputs, outputs in zip(layers, values[:-1], values[1:], strict=True):
        tangents = layer.outputs(inputs[between], bias=False)
        outputs[between] = _bent(tangents, outputs[between])

    names = {module: name for name, module in critic.named_modules()}
    gradient = {}
    for module, layer, inputs, slopes_of_outputs in zip(
        critic.hidden_layers(), layers, values[:-1], slopes, strict=True
    ):
        found = layer.gradient(slopes_of_outputs, inputs, rows_with_bias=2 * batch)
        gradient[f"{names[module]}.weight"], gradient[f"{names[module]}.bias"] = found
    heads_grad_RF = slope_R[:, None] * values[-1].flatten(1)
    heads_grad_BF = heads_grad_RF.view(3, batch, -1).sum(0)
    gradient["score.weight"] = heads_grad_BF.sum(0, keepdim=True)
    gradient["score.bias"] = slope_R[scored].sum(0, keepdim=True)
    one_hot_BL = functional.one_hot(labels_B, critic.class_embedding.num_embeddings)
    gradient["class_embedding.weight"] = one_hot_BL.to(dtype).T @ heads_grad_BF
    return gradient


def _bent(rows: Tensor, activations: Tensor) -> Tensor:
    """Return rows times the slope, 1 or ``NEGATIVE_SLOPE``, that each activation had."""
    bent: Tensor = torch.ops.aten.leaky_relu_backward(rows, activations, NEGATIVE_SLOPE, True)
    return bent
