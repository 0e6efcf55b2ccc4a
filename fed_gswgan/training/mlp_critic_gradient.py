"""The gradient of the critic's loss for ``MLPCritic``, written out: no graph, no double backward.

The critic is piecewise linear in the image, so with the slopes of its activations held fixed its
input gradient is a product of its own weights, and the gradient penalty's gradient is one more pass
through the same layers (the slopes change on a set of measure zero alone).

Shapes: B batch, C channels, H and W image, R rows (images, then samples), P pixels, D hidden units,
L classes.
"""

import torch
from torch import Tensor
from torch.nn import functional

from fed_gswgan.config import CriticConfig
from fed_gswgan.models.mlp_critic import NEGATIVE_SLOPE, MLPCritic


@torch.no_grad()
def set_mlp_critic_gradient(
    critic: MLPCritic,
    images_BCHW: Tensor,
    samples_BCHW: Tensor,
    labels_B: Tensor,
    mix_B: Tensor,
    config: CriticConfig,
) -> None:
    """Set ``grad`` of every parameter: of Wasserstein loss, gradient penalty and drift penalty.

    Args:
        critic: its parameters keep their values.
        images_BCHW: real images.
        samples_BCHW: generated samples of the same labels.
        labels_B: labels both are scored under.
        mix_B: where between sample (0) and image (1) the penalty is evaluated.
        config: weights of the two penalties.

    Source: WGAN-GP, arXiv 1704.00028, equation 3, differentiated by hand.
    """
    first, second = critic.hidden_layers()
    batch = len(labels_B)
    images_BP, samples_BP = images_BCHW.flatten(1), samples_BCHW.flatten(1)
    heads_BD = critic.score.weight + critic.class_embedding(labels_B)

    # The scores of images and samples, and the loss's slope in each.
    rows_RP, heads_RD = torch.cat([images_BP, samples_BP]), heads_BD.repeat(2, 1)
    hidden_1_RD, slopes_1_RD = _leaky(functional.linear(rows_RP, first.weight, first.bias))
    hidden_2_RD, slopes_2_RD = _leaky(functional.linear(hidden_1_RD, second.weight, second.bias))
    scores_R = (hidden_2_RD * heads_RD).sum(1) + critic.score.bias
    slope_R = torch.full_like(scores_R, 1 / batch)
    slope_R[:batch] = (2 * config.drift_penalty * scores_R[:batch] - 1) / batch
    back_2_RD = slope_R[:, None] * heads_RD * slopes_2_RD
    back_1_RD = (back_2_RD @ second.weight) * slopes_1_RD
    heads_grad_RD = slope_R[:, None] * hidden_2_RD

    # The input gradient between them, and the penalty's slope in it.
    mix_B1 = mix_B[:, None]
    between_BP = mix_B1 * images_BP + (1 - mix_B1) * samples_BP
    hidden_BD, slopes_1_BD = _leaky(functional.linear(between_BP, first.weight, first.bias))
    _, slopes_2_BD = _leaky(functional.linear(hidden_BD, second.weight, second.bias))
    up_2_BD = heads_BD * slopes_2_BD
    up_1_BD = (up_2_BD @ second.weight) * slopes_1_BD
    gradients_BP = up_1_BD @ first.weight
    norms_B1 = gradients_BP.norm(dim=1, keepdim=True)
    outer_B1 = 2 * config.gradient_penalty / batch * (norms_B1 - 1)
    directions_BP = torch.where(norms_B1 > 0, gradients_BP / norms_B1, 0.0)  # as autograd has it
    tangents_BP = outer_B1 * directions_BP

    # Through the same layers once more, in the direction of that slope.
    down_1_BD = functional.linear(tangents_BP, first.weight) * slopes_1_BD
    down_2_BD = functional.linear(down_1_BD, second.weight) * slopes_2_BD

    first.weight.grad = torch.cat([back_1_RD, up_1_BD]).T @ torch.cat([rows_RP, tangents_BP])
    first.bias.grad = back_1_RD.sum(0)
    second.weight.grad = torch.cat([back_2_RD, up_2_BD]).T @ torch.cat([hidden_1_RD, down_1_BD])
    second.bias.grad = back_2_RD.sum(0)
    heads_grad_BD = heads_grad_RD[:batch] + heads_grad_RD[batch:] + down_2_BD
    critic.score.weight.grad = heads_grad_BD.sum(0, keepdim=True)
    critic.score.bias.grad = slope_R.sum(0, keepdim=True)
    one_hot_BL = functional.one_hot(labels_B, critic.class_embedding.num_embeddings)
    critic.class_embedding.weight.grad = one_hot_BL.to(heads_grad_BD.dtype).T @ heads_grad_BD


def _leaky(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the activation and its slope, 1 or ``NEGATIVE_SLOPE``."""
    slopes = (values > 0).to(values.dtype).mul_(1 - NEGATIVE_SLOPE).add_(NEGATIVE_SLOPE)
    return values * slopes, slopes
