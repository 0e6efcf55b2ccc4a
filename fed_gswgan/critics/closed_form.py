"""Closed-form gradient of the WGAN-GP loss for critics that are piecewise linear in the image.

It replaces the double backward pass of autograd, and equals it up to float32 rounding.

Shapes: B batch, C channels, H and W image.
"""

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight

from fed_gswgan.models.critics import NEGATIVE_SLOPE, ConvCritic, MLPCritic

Layer = nn.Linear | nn.Conv2d


def is_piecewise_linear(critic: nn.Module) -> TypeGuard[MLPCritic | ConvCritic]:
    """Say whether the gradient below is this critic's.

    A subclass may score in another way, and under spectral norm a weight is no parameter but
    computed from one.
    """
    if type(critic) is not MLPCritic and type(critic) is not ConvCritic:
        return False
    layers = (*critic.hidden_layers(), critic.score, critic.class_embedding)
    return all(isinstance(layer.weight, nn.Parameter) for layer in layers)


@torch.no_grad()
def set_piecewise_linear_gradient(
    critic: MLPCritic | ConvCritic,
    images_BCHW: Tensor,
    samples_BCHW: Tensor,
    labels_B: Tensor,
    mix_B: Tensor,
    gradient_penalty: float,
    drift_penalty: float,
) -> None:
    """Set ``grad`` of every parameter: of Wasserstein loss, gradient penalty and drift penalty.

    Args:
        critic: its parameters stay as they are.
        images_BCHW: real images.
        samples_BCHW: generated samples of the same labels.
        labels_B: labels both are scored under.
        mix_B: where between sample (0) and image (1) the penalty is evaluated.
        gradient_penalty: its weight.
        drift_penalty: its weight.

    Source: WGAN-GP, arXiv 1704.00028, equation 3, differentiated by hand.
    """
    layers: tuple[Layer, ...] = critic.hidden_layers()
    batch = len(labels_B)
    scored, between = slice(0, 2 * batch), slice(2 * batch, 3 * batch)
    mix_B111 = mix_B[:, None, None, None]
    mixed_BCHW = mix_B111 * images_BCHW + (1 - mix_B111) * samples_BCHW

    # The scores of all rows; values[i] is what layer i takes, the last of them the features.
    values = [torch.cat([images_BCHW, samples_BCHW, mixed_BCHW])]
    for layer in layers:
        values.append(functional.leaky_relu_(_outputs(layer, values[-1]), NEGATIVE_SLOPE))
    heads_RF = (critic.score.weight + critic.class_embedding(labels_B)).repeat(3, 1)
    scores_R = (values[-1].flatten(1) * heads_RF).sum(1) + critic.score.bias

    # The loss's slopes, from the scores down. The loss does not score what lies between; slopes
    # of 1 there become the input gradient, which the penalty is about.
    slope_R = torch.full_like(scores_R, 1 / batch)
    slope_R[:batch] = (2 * drift_penalty * scores_R[:batch] - 1) / batch
    slope_R[between] = 1
    slopes = [_bent((slope_R[:, None] * heads_RF).view_as(values[-1]), values[-1])]
    for layer, inputs in zip(layers[:0:-1], values[-2:0:-1], strict=True):
        slopes.insert(0, _bent(_input_slopes(layer, slopes[0], inputs), inputs))
    gradients_BCHW = _input_slopes(layers[0], slopes[0][between], values[0][between])

    # The penalty's slope in the input gradient, and up through the layers once more in its
    # direction. What was computed between has served; this takes its place.
    gradients_BP = gradients_BCHW.flatten(1)
    norms_B1 = gradients_BP.norm(dim=1, keepdim=True)
    outer_B1 = 2 * gradient_penalty / batch * (norms_B1 - 1)
    directions_BP = torch.where(norms_B1 > 0, gradients_BP / norms_B1, 0.0)  # as autograd has it
    values[0][between] = (outer_B1 * directions_BP).view_as(mixed_BCHW)
    for layer, inputs, outputs in zip(layers, values[:-1], values[1:], strict=True):
        tangents = _outputs(layer, inputs[between], bias=False)
        outputs[between] = _bent(tangents, outputs[between])

    for layer, inputs, slopes_of_outputs in zip(layers, values[:-1], slopes, strict=True):
        layer.weight.grad = _weight_slopes(layer, slopes_of_outputs, inputs)
        if layer.bias is not None:  # what lies between was computed without
            all_but_outputs = [0, *range(2, slopes_of_outputs.ndim)]
            layer.bias.grad = slopes_of_outputs[scored].sum(all_but_outputs)
    heads_grad_RF = slope_R[:, None] * values[-1].flatten(1)
    heads_grad_BF = heads_grad_RF.view(3, batch, -1).sum(0)
    critic.score.weight.grad = heads_grad_BF.sum(0, keepdim=True)
    critic.score.bias.grad = slope_R[scored].sum(0, keepdim=True)
    one_hot_BL = functional.one_hot(labels_B, critic.class_embedding.num_embeddings)
    critic.class_embedding.weight.grad = one_hot_BL.to(heads_grad_BF.dtype).T @ heads_grad_BF


def _outputs(layer: Layer, inputs: Tensor, bias: bool = True) -> Tensor:
    """Return the layer's outputs, with or without its bias; a dense layer flattens its inputs."""
    added = layer.bias if bias else None
    if isinstance(layer, nn.Linear):
        return functional.linear(inputs.flatten(1), layer.weight, added)
    return functional.conv2d(inputs, layer.weight, added, layer.stride, layer.padding)


def _input_slopes(layer: Layer, slopes: Tensor, inputs: Tensor) -> Tensor:
    """Return the slopes in the inputs, of which only the shape is used, of those in the outputs.

    For a grey image the transposed convolution is a product of matrices for each sample and then
    the sum of patches that overlap, several times faster than oneDNN's with one channel.
    """
    if isinstance(layer, nn.Linear):
        return (slopes @ layer.weight).view_as(inputs)
    if inputs.shape[1] == 1:
        patches = layer.weight.flatten(1).T @ slopes.flatten(2)
        size, kernel = inputs.shape[2:], layer.weight.shape[2:]
        return functional.fold(patches, size, kernel, padding=layer.padding, stride=layer.stride)  # type: ignore[arg-type]
    geometry = layer.stride, layer.padding
    found: Tensor = conv2d_input(inputs.shape, layer.weight, slopes, *geometry)  # type: ignore[no-untyped-call]
    return found


def _weight_slopes(layer: Layer, slopes: Tensor, inputs: Tensor) -> Tensor:
    """Return the slopes in the weights, summed over the rows, of those in the outputs."""
    if isinstance(layer, nn.Linear):
        return slopes.T @ inputs.flatten(1)
    geometry = layer.stride, layer.padding
    found: Tensor = conv2d_weight(inputs, layer.weight.shape, slopes, *geometry)  # type: ignore[no-untyped-call]
    return found


def _bent(rows: Tensor, activations: Tensor) -> Tensor:
    """Return rows times the slope, 1 or ``NEGATIVE_SLOPE``, that each activation had."""
    bent: Tensor = torch.ops.aten.leaky_relu_backward(rows, activations, NEGATIVE_SLOPE, True)
    return bent
