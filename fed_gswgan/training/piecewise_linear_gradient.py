"""The gradient of the loss of a piecewise-linear critic, written out: no graph, no double backward.

Layers with leaky ReLU after each, and a score that is linear in the last layer's features under
each label: with the slopes of the activations held fixed, such a critic's input gradient is a
product of its own weights, and the gradient penalty's gradient is one more pass through the same
layers (the slopes change on a set of measure zero alone).

Shapes: B batch, C channels, H and W image, R rows (images, samples, what lies between them), F
features, P pixels, L classes.
"""

from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.models.conv_critic import ConvCritic
from fed_gswgan.models.mlp_critic import NEGATIVE_SLOPE, MLPCritic
from fed_gswgan.training.linear_layer import LinearLayer, linear_layer
from fed_gswgan.training_config import CriticConfig

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
    config: CriticConfig,
) -> None:
    """Set ``grad`` of every parameter to the gradient below."""
    inputs = images_BCHW, samples_BCHW, labels_B, mix_B
    gradient = piecewise_linear_gradient(critic, *inputs, config)
    for name, parameter in critic.named_parameters():
        parameter.grad = gradient[name]


@torch.no_grad()
def piecewise_linear_gradient(
    critic: MLPCritic | ConvCritic,
    images_BCHW: Tensor,
    samples_BCHW: Tensor,
    labels_B: Tensor,
    mix_B: Tensor,
    config: CriticConfig,
    as_layer: AsLayer = linear_layer,
) -> dict[str, Tensor]:
    """Return that of Wasserstein loss, gradient penalty and drift penalty, by parameter name.

    Args:
        critic: stays as it is.
        images_BCHW: real images.
        samples_BCHW: generated samples of the same labels.
        labels_B: labels both are scored under.
        mix_B: where between sample (0) and image (1) the penalty is evaluated.
        config: weights of the two penalties, and what the layers compute in; scores, penalties and
            the gradient are of the parameters' own type.
        as_layer: how each layer is computed.

    Source: WGAN-GP, arXiv 1704.00028, equation 3, differentiated by hand.
    """
    dtype = critic.score.weight.dtype
    layer_dtype = torch.bfloat16 if config.critic_compute == "bfloat16" else dtype
    layers = [as_layer(module, layer_dtype) for module in critic.hidden_layers()]
    batch = len(labels_B)
    scored, between = slice(0, 2 * batch), slice(2 * batch, 3 * batch)
    mix_B111 = mix_B[:, None, None, None]
    mixed_BCHW = mix_B111 * images_BCHW + (1 - mix_B111) * samples_BCHW

    # The scores of all rows; values[i] is what layer i takes, the last of them the features.
    values = [torch.cat([images_BCHW, samples_BCHW, mixed_BCHW]).to(layer_dtype)]
    for layer in layers:
        values.append(functional.leaky_relu_(layer.outputs(values[-1]), NEGATIVE_SLOPE))
    heads_RF = (critic.score.weight + critic.class_embedding(labels_B)).repeat(3, 1)
    scores_R = (values[-1].flatten(1).to(dtype) * heads_RF).sum(1) + critic.score.bias

    # The loss's slopes, from the scores down. The loss does not score what lies between; slopes
    # of 1 there become the input gradient, which the penalty is about.
    slope_R = torch.full_like(scores_R, 1 / batch)
    slope_R[:batch] = (2 * config.drift_penalty * scores_R[:batch] - 1) / batch
    slope_R[between] = 1
    slopes = [_bent((slope_R[:, None] * heads_RF).to(layer_dtype).view_as(values[-1]), values[-1])]
    for layer, inputs in zip(layers[:0:-1], values[-2:0:-1], strict=True):
        slopes.insert(0, _bent(layer.input_slopes(slopes[0], inputs), inputs))
    gradients_BCHW = layers[0].input_slopes(slopes[0][between], values[0][between])

    # The penalty's slope in the input gradient, and up through the layers once more in its
    # direction. What was computed between has served; this takes its place.
    gradients_BP = gradients_BCHW.flatten(1).to(dtype)
    norms_B1 = gradients_BP.norm(dim=1, keepdim=True)
    outer_B1 = 2 * config.gradient_penalty / batch * (norms_B1 - 1)
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
